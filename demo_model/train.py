"""Trains the demo model: ``python -m demo_model.train --minutes 8 --out build/demo``.

The corpus is made on the fly by worker processes and packed into rows of 1024 tokens; documents in a row do not see
each other. Muon and AdamW, a constant rate with a linear fall at the end, an average of the last weights, saved in
bfloat16 as a Hugging Face directory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from demo_model.network import Attention, Network, Shape, save_model
from demo_model.optimizer import Muon
from demo_model.packing import ROW, WEIGHT_ONE, Workers
from demo_model.tokenizer import DEMO

_MUON = ("wq", "wk", "wv", "wo", "wgate", "wup", "wdown")


class Pool:
    """Rows on the device, growing as the workers deliver, drawn at random."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.tokens = torch.zeros(capacity, ROW, dtype=torch.int16, device=device)
        self.weights = torch.zeros(capacity, ROW, dtype=torch.uint8, device=device)
        self.owners = torch.zeros(capacity, ROW, dtype=torch.uint8, device=device)
        self.capacity = capacity
        self.made = 0

    def feed(self, workers: Workers, *, until: int = 0) -> None:
        """Takes what is there; waits until ``until`` rows were made in all."""
        while True:
            block = workers.take(wait=self.made < until)
            if block is None:
                return
            rows = len(block.tokens)
            at = self.made % self.capacity
            if at + rows > self.capacity:
                at = 0
            self.tokens[at : at + rows] = torch.from_numpy(block.tokens.view("int16")).to(self.tokens.device)
            self.weights[at : at + rows] = torch.from_numpy(block.weights).to(self.tokens.device)
            self.owners[at : at + rows] = torch.from_numpy(block.owners).to(self.tokens.device)
            self.made += rows

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, weights and owners [batch, ROW] of random rows."""
        size = min(self.made, self.capacity)
        at = torch.randint(size, (batch,), generator=generator, device=self.tokens.device)
        return self.tokens[at].long(), self.weights[at].float() / WEIGHT_ONE, self.owners[at].int()


def dense_attention(owners: Tensor) -> Attention:
    """Causal attention within documents by a full mask; owners [batch, tokens]."""
    tokens = owners.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=owners.device).tril()
    mask = ((owners[:, :, None] == owners[:, None, :]) & causal)[:, None]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)

    return attend


def _loss(logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    target_weights = weights[:, 1:].reshape(-1)
    losses = functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1), reduction="none"
    )
    return (losses * target_weights).sum() / target_weights.sum()


def flex_step(network: Network) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss with block-sparse attention, compiled."""
    from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

    make_mask = torch.compile(create_block_mask)

    @torch.compile
    def compute(ids: Tensor, weights: Tensor, mask: BlockMask) -> Tensor:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            mixed: Tensor = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
            return mixed

        with torch.autocast("cuda", torch.bfloat16):
            logits = network(ids, attend)
        return _loss(logits, ids, weights)

    def step(ids: Tensor, weights: Tensor, owners: Tensor) -> Tensor:
        def within(b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (q >= k) & (owners[b, q] == owners[b, k])

        mask = make_mask(within, len(ids), None, ROW, ROW, device=str(ids.device))
        loss: Tensor = compute(ids, weights, mask)
        return loss

    return step


def dense_step(network: Network) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss with masked attention, not compiled; slower but runs anywhere."""

    def step(ids: Tensor, weights: Tensor, owners: Tensor) -> Tensor:
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            logits = network(ids, dense_attention(owners))
        return _loss(logits, ids, weights)

    return step


def _choose_step(
    network: Network, pool: Pool, batch: int, generator: torch.Generator
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    if not pool.tokens.is_cuda:
        return dense_step(network)
    try:
        step = flex_step(network)
        step(*pool.draw(batch, generator)).backward()  # type: ignore[no-untyped-call]
        return step
    except Exception as error:  # whatever the compiler raises, the slow way still trains
        print(f"flex attention failed, using masked attention: {type(error).__name__}: {str(error)[:500]}", flush=True)
        return dense_step(network)


def train(args: argparse.Namespace) -> None:
    """Trains and writes the model directory ``args.out`` and the checkpoint ``args.out``.pt."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    workers = Workers(args.tokenizer / "tokenizer.json", args.workers, seed=1000 * args.seed)
    shape = Shape()
    network = Network(shape).to(device)
    average = {name: p.detach().clone() for name, p in network.named_parameters()}
    if args.resume:
        network.load_state_dict(torch.load(args.resume, map_location=device, weights_only=True))
    pool = Pool(args.pool_rows, device)
    generator = torch.Generator(device).manual_seed(args.seed)
    pool.feed(workers, until=args.batch * 8)
    step = _choose_step(network, pool, args.batch, generator)
    parameters = dict(network.named_parameters())
    muon = Muon([parameters[name] for name in _MUON], compiled=device.type == "cuda")
    others = [p for name, p in parameters.items() if name not in _MUON]
    adam = torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=device.type == "cuda")
    start = time.perf_counter()
    budget, count, shown, running = args.minutes * 60, 0, 0.0, torch.zeros((), device=device)
    since = 0
    while (spent := time.perf_counter() - start) < budget:
        done = spent / budget
        rate = min(1.0, (count + 1) / 100) * min(1.0, max(0.0, 1 - done) / args.fall)
        pool.feed(workers)
        network.zero_grad(set_to_none=True)
        loss = step(*pool.draw(args.batch, generator))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for group in adam.param_groups:
            group["lr"] = args.adam_rate * rate
        adam.step()
        muon.step(args.muon_rate * rate)
        count += 1
        since += 1
        running += loss.detach()
        with torch.no_grad():
            keep = min(0.998, 1 - 1 / (count + 1))
            torch._foreach_lerp_(list(average.values()), list(parameters.values()), 1 - keep)
        if spent - shown > 10 or count == 1:
            used, made = (rows * ROW / max(spent, 1e-9) / 1e6 for rows in (count * args.batch, pool.made))
            print(
                f"{spent:6.0f} s  step {count}  loss {running.item() / since:.4f}  rate {rate:.3f}  "
                f"{used:.2f} Mtok/s used, {made:.2f} made",
                flush=True,
            )
            shown, since = spent, 0
            running.zero_()
    workers.close()
    print(
        f"{count} steps, {count * args.batch * ROW / 1e6:.0f} M tokens seen, {pool.made * ROW / 1e6:.0f} M made",
        flush=True,
    )
    save_model(average, shape, args.out)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if args.tokenizer.resolve() != args.out.resolve():
            shutil.copyfile(args.tokenizer / name, args.out / name)
    torch.save({name: tensor.cpu() for name, tensor in average.items()}, args.out.with_suffix(".pt"))
    args.out.with_suffix(".json").write_text(
        json.dumps({"steps": count, "tokens": count * args.batch * ROW, "minutes": args.minutes})
    )


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, default=DEMO)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument(
        "--fall", type=float, default=0.6, help="the last part of the time in which the rate falls to zero"
    )
    parser.add_argument("--pool-rows", type=int, default=1_500_000)
    parser.add_argument("--resume", type=Path)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
