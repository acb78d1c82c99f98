"""One case of ``peers.py`` by one peer; prints its number of regions and its CPU seconds.

python benchmarks/peers_inside.py edge|splinecam CHECKOUT CASE.npz
"""

import contextlib
import io
import json
import sys
import time

import numpy as np
import torch

REPEAT = 3  # of edge subdivision


def edge(weights, biases, box):
    """Vertices and edges by the zero lines of all hidden units; by Euler's formula the regions."""
    from edge_subdivision import skeletal_subdivision
    from NN import Net

    net = Net([2, *(len(w) for w in weights[:-1])])
    for layer, w, b in zip(net.fcs, weights, biases, strict=False):
        layer.weight.data, layer.bias.data = w.float(), b.float()
    least = float("inf")
    for _ in range(REPEAT):
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            vertices, edges, _ = skeletal_subdivision(net, bbox=box, device=torch.device("cpu"))
        least = min(least, time.process_time() - start)
    return len(edges) - len(vertices) + 1, least


def on_the_cpu():
    """SplineCam moves things to the GPU by name, and annotates less than torch.jit wants."""

    def there(*given, **named):
        moved = ["cpu" if isinstance(a, str) and a == "cuda" else a for a in given]
        return moved, {
            k: "cpu" if isinstance(a, str) and a == "cuda" else a for k, a in named.items()
        }

    def stays(to):
        def moved(self, *given, **named):
            given, named = there(*given, **named)
            return to(self, *given, **named)

        return moved

    script = torch.jit.script

    def scripted(function):
        try:
            return script(function)
        except RuntimeError:
            return function

    torch.jit.script = scripted
    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self, *_, **__: self
        kind.to = stays(kind.to)
    import graph_tool.draw

    if not hasattr(graph_tool.draw, "graph_draw"):  # where cairo is missing; no figure is drawn
        graph_tool.draw.graph_draw = None


def splinecam(weights, biases, box):
    """Its regions; the decision boundary, which it draws behind them, is left out."""
    on_the_cpu()
    import splinecam as sc

    def run(weights, biases):
        layers = []
        for w, b in zip(weights, biases, strict=True):
            linear = torch.nn.Linear(w.shape[1], len(w)).double()
            linear.weight.data, linear.bias.data = w.clone(), b.clone()
            layers += [linear, torch.nn.ReLU()]
        model = torch.nn.Sequential(*layers[:-1]).eval()
        low, high = box
        corners = [[low, low], [high, low], [high, high], [low, high], [low, low]]
        domain = torch.tensor(corners, dtype=torch.float64)
        chart = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
        net = sc.wrappers.model_wrapper(
            model, input_shape=(2,), T=chart, dtype=torch.float64, device="cpu"
        )
        whole = sc.compute.to_next_layer_partition_batched
        boundary = []

        def regions_only(cycles, *given, **named):
            if named.get("current_layer") is None:  # the call for the boundary, timed by itself
                start = time.process_time()
                boundary.append(start)
            return whole(cycles, *given, **named)

        sc.compute.to_next_layer_partition_batched = regions_only
        start = time.process_time()
        out, *_ = sc.compute.get_partitions_with_db(domain, chart, net, n_workers=0)
        end = boundary[0] if boundary else time.process_time()
        sc.compute.to_next_layer_partition_batched = whole
        return len(out), end - start

    g = torch.Generator().manual_seed(0)
    small = [torch.randn(6, 2, generator=g).double(), torch.randn(1, 6, generator=g).double()]
    with contextlib.redirect_stdout(io.StringIO()):
        run(small, [torch.zeros(6).double() + 0.1, torch.zeros(1).double()])  # scripts compiled
        return run(weights, biases)


def main():
    kind, checkout, file = sys.argv[1:]
    sys.path.insert(0, checkout)
    torch.set_num_threads(1)
    z = np.load(file)
    layers = sum(key.startswith("W") for key in z.files)
    weights, biases = ([torch.from_numpy(z[f"{k}{i}"]) for i in range(layers)] for k in "Wb")
    with torch.no_grad():
        regions, seconds = {"edge": edge, "splinecam": splinecam}[kind](
            weights, biases, tuple(z["box"].tolist())
        )
    print(json.dumps({"regions": regions, "seconds": round(seconds, 4)}))


if __name__ == "__main__":
    main()
