"""Run folders with plausible numbers, as training leaves them, and a browser to look at pages."""

import json
import math
import re
import shutil
import subprocess

import numpy as np
from etils import epath
from PIL import Image

from caecnn_jax.records import pictures, runs
from caecnn_jax.results import metrics

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
RARE = {"bird": 2500, "deer": 2500, "truck": 2500}
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def evaluation(rng, skill, use_cnn=True, use_cae=True, size=1000):
    """What an epoch's evaluation finds; skill is the share of a usual class that is recognised."""
    by_step = {"images": np.array([size])}
    if use_cae:
        by_step["loss_cae"] = np.array([0.05 + 0.01 * rng.random()])
    if use_cnn:
        matrix = []
        for true, name in enumerate(CLASSES):
            share = skill - (0.15 if name in RARE else 0) + 0.05 * rng.standard_normal()
            weights = rng.dirichlet(np.full(10, 0.8))
            if name in ("cat", "dog"):
                weights = 0.4 * weights + 0.6 * np.eye(10)[{"cat": 5, "dog": 3}[name]]
            weights[true] = 0
            weights = share * np.eye(10)[true] + (1 - share) * weights / weights.sum()
            matrix.append(rng.multinomial(size // 2 if name in RARE else size, weights))
        matrix = np.array(matrix)
        labels, predicted = np.repeat(np.argwhere(matrix >= 0), matrix.ravel(), axis=0).T
        order = rng.permutation(len(labels))
        by_step |= {
            "loss_cnn": np.array([0.8 + 0.05 * rng.random()]),
            "label": labels[order][None],
            "predicted": predicted[order][None],
            "confidence": rng.triangular(0.1, 0.9, 1.0, (1, len(labels))),
            "mask": np.ones((1, len(labels)), bool),
        }
    counts = [RARE.get(name, 5000) for name in CLASSES]
    return metrics.evaluation(by_step, len(CLASSES), counts)


def record(rng, run, epoch, warmup, skill, use_cnn=True, use_cae=True):
    joint = epoch > warmup
    fall = math.exp(-epoch / 4)
    cae = lambda: 0.05 + 0.4 * fall + 0.01 * rng.random() if use_cae else None  # noqa: E731
    rise = 1 - math.exp(-max(0, epoch - warmup) / 3)
    cnn = lambda: 2.3 - 1.5 * rise + 0.05 * rng.random() if use_cnn and joint else None  # noqa: E731
    accuracy = skill * rise + 0.01 * rng.standard_normal() if use_cnn and joint else None
    seconds = 20 + rng.random() + (15 if epoch == 1 else 0)
    return {
        "run": run,
        "epoch": epoch,
        "phase": "joint" if joint else "warmup",
        "train": {"loss_cae": cae(), "loss_cnn": cnn()},
        "valid": {"loss_cae": cae(), "loss_cnn": cnn(), "accuracy": accuracy},
        "seconds": seconds,
        "images_per_second": 34000 / seconds,
    }


def drawn(rng, epoch, count=16):
    """Smooth random images and a reconstruction that gets sharper with the epoch."""
    coarse = Image.fromarray(rng.integers(0, 255, (4 * count, 4, 3), dtype=np.uint8))
    tall = np.asarray(coarse.resize((32, 32 * count), Image.Resampling.BICUBIC))
    originals = tall.reshape(count, 32, 32, 3)
    noise = rng.normal(0, 60 / epoch, originals.shape)
    captions = [CLASSES[index % 10] for index in range(count)]
    blurred = np.clip(originals + noise, 0, 255).astype(np.uint8)
    return pictures.reconstructions(originals, blurred, captions)


def make_run(
    workdir,
    *,
    num_folds=5,
    test=True,
    use_cnn=True,
    use_cae=True,
    num_epoch=10,
    finished=True,
    skill=0.75,
    seed=0,
    data_digest="d0",
    fold_seed=0,
):
    """A run's folder as training leaves it, filled with plausible numbers."""
    rng = np.random.default_rng(seed)
    workdir.mkdir(parents=True)
    warmup = 2 if use_cae and use_cnn else 0
    config = {
        "use_cnn": use_cnn,
        "use_cae": use_cae,
        "only_train_cae_until": warmup,
        "train_data_regulation": RARE,
        "train_data_expansion": dict.fromkeys(RARE, 2000),
        "cnn": {
            "use_mixed_input": True,
            "input_resolution": 32,
            "block_sizes": [[3, 26, True], [32, 64, True], [64, 128, True]],
            "opt": {"lr": 1e-5, "betas": [0.0, 0.999]},
        },
        "cae": {"enc_block_sizes": [[3, 6]], "opt": {"lr": 1e-5, "betas": [0.9, 0.999]}},
        "do_cv": bool(num_folds),
        "do_test": test,
        "num_folds": num_folds,
        "num_epoch": num_epoch,
        "batch_size": 64,
        "data_dir": "",
        "seed": seed,
    }
    (workdir / "config.json").write_text(json.dumps(config))
    names = [f"fold_{fold + 1}" for fold in range(num_folds)] + ["test"] * test
    if not finished:
        names = names[:3]
    cut = lambda name: num_epoch - 4 if not finished and name == names[-1] else num_epoch  # noqa: E731
    parts = {"use_cnn": use_cnn, "use_cae": use_cae}
    records = [
        record(rng, name, epoch, warmup, skill, **parts)
        for name in names
        for epoch in range(1, cut(name) + 1)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (workdir / "history.jsonl").write_text(lines)
    for name in names:
        (workdir / "images" / name).mkdir(parents=True)
        for epoch in range(5, cut(name) + 1, 5) if use_cae else ():
            path = workdir / "images" / name / f"reconstruction-epoch-{epoch:04d}.png"
            path.write_bytes(drawn(np.random.default_rng(1), epoch))
    if finished:
        found = {}
        for name in names:
            last = evaluation(rng, skill - 0.03 * (name == "test"), **parts) | {"epoch": num_epoch}
            found[name] = [last] * num_epoch
        (workdir / "metrics.json").write_text(json.dumps(metrics.summarize(found, CLASSES)))
    (workdir / "run.json").write_text(json.dumps(run_info(names, data_digest, fold_seed, records)))
    return workdir


def run_info(names, data_digest, fold_seed, records):
    full = dict.fromkeys(CLASSES, 5000)
    regulated = full | RARE
    fold = {
        "train": {name: count * 4 // 5 for name, count in regulated.items()},
        "valid": {name: count // 5 for name, count in regulated.items()},
    }
    fold["expanded"] = {n: c + 2000 * (n in RARE) for n, c in fold["train"].items()}
    expanded = {n: c + 2000 * (n in RARE) for n, c in regulated.items()}
    tests = dict.fromkeys(CLASSES, 1000)
    counts = {"all": {"train": full, "test": tests}, "regulated": regulated}
    counts |= {name: fold for name in names if name != "test"}
    if "test" in names:
        counts["test"] = {"train": regulated, "expanded": expanded, "valid": tests}
    return {
        "environment": {
            "python": "3.11.2",
            "jax": "0.10.2",
            "jaxlib": "0.10.2",
            "flax": "0.12.7",
            "optax": "0.2.8",
            "orbax": "0.12.1",
            "backend": "gpu",
            "device_kind": "NVIDIA H200",
            "num_devices": 1,
            "num_processes": 1,
            "cpu_count": 16,
        },
        "class_names": CLASSES,
        "class_counts": counts,
        "data_digest": data_digest,
        "fold_digests": {name: f"{name}-{fold_seed}" for name in names},
        "started": "2026-07-03T09:15:00+00:00",
        "seconds": sum(record["seconds"] for record in records),
    }


def text_of(path):
    """A page's words without its markup and pictures."""
    html = re.sub(r"<(style|svg).*?</\1>", " ", path.read_text(), flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def in_browser(page, width, folder, script):
    """The value of a JavaScript expression in the page as a browser lays it out."""
    html = re.sub(r"<meta http-equiv.*?>", "", page.read_text(), flags=re.S)  # allow the script
    measured = folder / "measured.html"
    asked = f"<script>document.title = 'value ' + JSON.stringify({script})</script></body>"
    measured.write_text(html.replace("</body>", asked))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-quic"]
    flags += [f"--user-data-dir={folder / 'browser'}", f"--window-size={width},1000"]
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", measured.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(re.search(r"<title>value (.*?)</title>", done.stdout)[1])


def counted_run(counts, **config):
    """A read run whose config cut no class by name, on so many images of each."""
    fields = {"train_data_regulation": {}, **config}
    info = {"class_counts": {"regulated": dict(zip("abcdefghij", counts, strict=False))}}
    return runs.Run(epath.Path("run"), fields, {}, None, info)
