"""What `make` does, in standard-library Python: check the machine, build, install, test. Entry: tools/bootstrap.py."""
