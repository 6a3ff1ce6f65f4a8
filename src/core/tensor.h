#pragma once
// Storage: a block of memory on one device, freed by its last owner (malloc, a mapped file, a numpy array, device
// memory). Tensor: a strided window on a Storage. Copying a Tensor copies the handle, never the data.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/dtype.h"
#include "core/shape.h"

namespace fastllm::core {

// Where memory lives: "cpu", "null", "cuda:0" ... Interned by device::open_device; compare by name.
struct Place {
  std::string name = "cpu";
  bool host = true;  // the CPU may dereference the pointer
  bool operator==(const Place& other) const { return name == other.name; }
};

class Storage {
 public:
  using Release = std::function<void()>;
  Storage(void* data, std::size_t bytes, Place place, Release release, bool writable = true)
      : data_(data), bytes_(bytes), place_(std::move(place)), release_(std::move(release)), writable_(writable) {}
  ~Storage() {
    if (release_) release_();
  }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  const Place& place() const { return place_; }
  bool writable() const { return writable_; }

  // Host memory aligned to 64 bytes; Error(out_of_memory) with the size when there is none.
  static std::shared_ptr<Storage> host(std::size_t bytes);

 private:
  void* data_;
  std::size_t bytes_;
  Place place_;
  Release release_;
  bool writable_;
};

class Tensor {
 public:
  Tensor() = default;  // no storage: defined() is false
  Tensor(std::shared_ptr<Storage> storage, DType dtype, Shape shape);  // contiguous, at offset 0
  Tensor(std::shared_ptr<Storage> storage, DType dtype, Shape shape, Shape strides, std::int64_t offset_bytes);

  static Tensor empty(DType dtype, Shape shape);  // host memory, uninitialised

  bool defined() const { return storage_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }  // in elements
  std::int64_t offset_bytes() const { return offset_bytes_; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  const Place& place() const { return storage_->place(); }
  std::int64_t numel() const { return shape_.numel(); }
  std::size_t nbytes() const { return static_cast<std::size_t>(numel()) * dtype_size(dtype_); }
  bool contiguous() const;
  void* data() const { return static_cast<char*>(storage_->data()) + offset_bytes_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data());
  }

  Tensor reshape(Shape shape) const;  // a view; Error(shape_error) if not viewable
  Tensor slice(int axis, std::int64_t start, std::int64_t stop) const;  // a view
  Tensor permute(std::span<const int> axes) const;  // a view

 private:
  std::shared_ptr<Storage> storage_;
  DType dtype_ = DType::f32;
  Shape shape_;
  Shape strides_;
  std::int64_t offset_bytes_ = 0;
};

}  // namespace fastllm::core
