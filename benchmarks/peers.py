"""PyTorch programs of the mixed experiment to measure this one against (extra `bench`).

ReferenceLike is built as the reference is: NCHW, one Python call of albumentations an image in a
Dataset, a DataLoader in the process, losses read back every step, class metrics by NumPy at the end
of an epoch. Tuned is what PyTorch does best with the same work: channels_last, batches augmented as
a whole, fused Adam, torch.compile where it gains, nothing read back before the epoch's end.
"""

import itertools
import os
import time

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would look for a newer one online

import albumentations
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from torch import nn
from torch.nn import functional
from torch.utils import data as torch_data

from benchmarks import worker
from configs import mixed

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
BATCH_SIZE, EVAL_BATCH_SIZE = 64, 256  # images; the reference evaluates in batches of 64, too
HOLE = 12  # pixels
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Autoencoder(nn.Module):
    """Encoder and decoder of one block each; names as in the reference's state dict."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(2), nn.LeakyReLU(0.2), nn.BatchNorm2d(6)
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.BatchNorm2d(3)
        )


class MixedCNN(nn.Module):
    """Image and code [B, 6, 16, 16] to logits [B, 10]."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 26, 3, padding=1), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128)
        self.linear = nn.Linear(128 * 4 * 4, 10)

    def forward(self, images, code):
        def activate(x):
            return functional.leaky_relu(x, 0.2)

        x = torch.cat([functional.max_pool2d(self.conv1(images), 2), code], dim=1)
        x = self.bn1(activate(x))
        x = self.bn2(activate(functional.max_pool2d(self.conv2(x), 2)))
        x = self.bn3(activate(functional.max_pool2d(self.conv3(x), 2)))
        return self.linear(x.flatten(1))


class Model(nn.Module):
    """Both networks; the classifier's gradient reaches the encoder."""

    def __init__(self):
        super().__init__()
        self.cae, self.cnn = Autoencoder(), MixedCNN()

    def forward(self, images, joint: bool):
        """The reconstruction and, if `joint`, the logits (else None)."""
        code = self.cae.encoder(images)
        return self.cae.decoder(code), self.cnn(images, code) if joint else None


def make_optimizers(model: Model, config, **options) -> dict[str, torch.optim.Adam]:
    """An Adam for each network."""
    found = {}
    for part in ("cae", "cnn"):
        parameters, opt = getattr(model, part).parameters(), config[part].opt
        found[part] = torch.optim.Adam(parameters, opt.lr, opt.betas, **options)
    return found


def losses(outputs, images, labels) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean squared error and the mean cross-entropy, 0 without logits."""
    reconstruction, logits = outputs
    loss_cae = functional.mse_loss(reconstruction, images)
    if logits is None:
        return loss_cae, torch.zeros_like(loss_cae)
    return loss_cae, functional.cross_entropy(logits, labels)


def train_step(forward, optimizers, images, labels, joint: bool):
    """One update; `forward(images, joint)` is the model. Returns the two losses and the logits."""
    outputs = forward(images, joint)
    loss_cae, loss_cnn = losses(outputs, images, labels)
    used = [opt for part, opt in optimizers.items() if joint or part == "cae"]
    for optimizer in used:
        optimizer.zero_grad()
    (loss_cae + loss_cnn).backward()
    for optimizer in used:
        optimizer.step()
    return loss_cae.detach(), loss_cnn.detach(), outputs[1]


def class_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy and, by class, precision, recall and F1."""
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, predictions), 1)
    hits = confusion.diagonal()
    precision = hits / np.maximum(confusion.sum(0), 1)
    recall = hits / np.maximum(confusion.sum(1), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    accuracy = hits.sum() / max(confusion.sum(), 1)
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


class Peer:
    """What both peers share: data, model, the clock and the description."""

    def __init__(self):
        torch.set_num_threads(os.cpu_count())
        self.data = worker.random_data()
        self.config = mixed.get_config()
        self.split = worker.fold_splits(self.config, self.data)[0]
        self.model = Model().to(DEVICE)

    def measure(self, phase: str, images: int) -> tuple[int, float]:
        """Runs about `images` images (0: all) of a phase; returns how many, and the seconds."""
        start = time.perf_counter()
        self.model.train(phase != "evaluate")
        with torch.set_grad_enabled(phase != "evaluate"):
            done = self.run(phase, images)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return done, time.perf_counter() - start

    def describe(self) -> dict:
        """Device and versions."""
        name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
        versions = {"torch": torch.__version__, "albumentations": albumentations.__version__}
        return {"device": name, "versions": versions, "threads": torch.get_num_threads()}


class Images(torch_data.Dataset):
    """Images of a split, each transformed by a Python call of its own."""

    def __init__(self, data, indices, transform):
        self.data, self.indices, self.transform = data, indices, transform

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, position):
        index = self.indices[position]
        return self.transform(image=self.data.images[index])["image"], int(self.data.labels[index])


class ReferenceLike(Peer):
    """The program as the reference is written."""

    def __init__(self):
        super().__init__()
        self.optimizers = make_optimizers(self.model, self.config)
        normalize = albumentations.Normalize(MEAN, STD)
        augmentation = [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.Affine(
                scale=(0.75, 1.25), rotate=(-30, 30), border_mode=cv2.BORDER_REFLECT_101, p=1
            ),
            normalize,
            albumentations.CoarseDropout((1, 1), (HOLE, HOLE), (HOLE, HOLE), fill=0, p=0.5),
        ]
        self.train_loader = self._loader(self.split.expanded, augmentation, shuffle=True)
        self.valid_loader = self._loader(self.split.valid, [normalize], shuffle=False)

    def _loader(self, indices, transforms, shuffle: bool) -> torch_data.DataLoader:
        transform = albumentations.Compose([*transforms, ToTensorV2()])
        images = Images(self.data, indices, transform)
        return torch_data.DataLoader(images, BATCH_SIZE, shuffle=shuffle, num_workers=0)

    def run(self, phase: str, images: int) -> int:
        """An epoch, or its first batches."""
        loader = self.valid_loader if phase == "evaluate" else self.train_loader
        seen, sums, truth, predictions = 0, np.zeros(2), [], []
        for batch, labels in itertools.islice(loader, -(-images // BATCH_SIZE) or None):
            batch, labels = batch.to(DEVICE), labels.to(DEVICE)
            if phase == "evaluate":
                outputs = self.model(batch, True)
                logits, parts = outputs[1], losses(outputs, batch, labels)
            else:
                joint = phase == "joint"
                *parts, logits = train_step(self.model, self.optimizers, batch, labels, joint)
            seen += len(labels)
            sums += [loss.item() * len(labels) for loss in parts]
            if logits is not None:
                truth.append(labels.cpu().numpy())
                predictions.append(logits.argmax(1).cpu().numpy())
        if truth:
            class_metrics(np.concatenate(truth), np.concatenate(predictions))
        return seen


class Tuned(Peer):
    """The same work as PyTorch does it best."""

    def __init__(self, dtype: str = "float32"):
        super().__init__()
        self.dtype = getattr(torch, dtype)
        self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizers = make_optimizers(self.model, self.config, fused=True)
        compiled = torch.compile(self.model, dynamic=False)
        # On CPU compiling gains 28 % in evaluation and loses 11 % in training, 12 % in augmentation
        # (images per CPU second, one core, torch 2.13); on a GPU it saves launches everywhere.
        on_gpu = DEVICE.type == "cuda"
        self.forward = {"train": compiled if on_gpu else self.model, "evaluate": compiled}
        self.augment = torch.compile(augment, dynamic=False) if on_gpu else augment
        self.images = torch.from_numpy(self.data.images).to(DEVICE)
        self.labels = torch.from_numpy(self.data.labels).long().to(DEVICE)

    def run(self, phase: str, images: int) -> int:
        """An epoch, or its first batches."""
        evaluating = phase == "evaluate"
        order = torch.from_numpy(self.split.valid if evaluating else self.split.expanded)
        if not evaluating:
            order = order[torch.randperm(len(order))]
        size = EVAL_BATCH_SIZE if evaluating else BATCH_SIZE
        seen, sums = 0, torch.zeros(2, device=DEVICE)
        confusion = torch.zeros(100, dtype=torch.long, device=DEVICE)
        for indices in itertools.islice(order.to(DEVICE).split(size), -(-images // size) or None):
            pixels, labels = self.images[indices], self.labels[indices]
            batch = normalize(pixels) if evaluating else self.augment(pixels, *draw(len(pixels)))
            with torch.autocast(DEVICE.type, self.dtype, enabled=self.dtype != torch.float32):
                if evaluating:
                    outputs = self.forward["evaluate"](batch, True)
                    logits, parts = outputs[1], losses(outputs, batch, labels)
                else:
                    *parts, logits = train_step(
                        self.forward["train"], self.optimizers, batch, labels, phase == "joint"
                    )
            seen += len(labels)
            sums += torch.stack(tuple(parts)) * len(labels)
            if logits is not None:
                confusion += torch.bincount(labels * 10 + logits.argmax(1), minlength=100)
        sums.tolist(), confusion.tolist()  # read back once
        return seen


def normalize(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [B, H, W, 3] to normalised float [B, 3, H, W] in channels_last."""
    mean, std = (torch.tensor(values, device=pixels.device) * 255 for values in (MEAN, STD))
    return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)


def draw(size: int) -> tuple[torch.Tensor, ...]:
    """Flip -1 or 1, angle in radians, scale, the hole's top and left (-HOLE: none), each [B]."""
    uniform = torch.rand(6, size, device=DEVICE)
    corner = (uniform[3:5] * (32 - HOLE + 1)).long()
    return (
        torch.where(uniform[0] < 0.5, -1.0, 1.0),
        torch.deg2rad(uniform[1] * 60 - 30),
        uniform[2] * 0.5 + 0.75,
        *torch.where(uniform[5] < 0.5, corner, -HOLE),
    )


def augment(pixels, flip, angle, scale, top, left) -> torch.Tensor:
    """uint8 [B, 32, 32, 3] to augmented, normalised float [B, 3, 32, 32] in channels_last."""
    cosine, sine, zero = torch.cos(angle) / scale, torch.sin(angle) / scale, torch.zeros_like(angle)
    rows = [
        torch.stack([flip * cosine, -flip * sine, zero], 1),
        torch.stack([sine, cosine, zero], 1),
    ]
    images = normalize(pixels)
    grid = functional.affine_grid(torch.stack(rows, 1), images.shape, align_corners=True)
    # With align_corners, "reflection" mirrors without repeating the edge, as reflect-101 does.
    images = functional.grid_sample(images, grid, "bilinear", "reflection", align_corners=True)
    place = torch.arange(32, device=pixels.device)
    in_rows = (place >= top[:, None]) & (place < top[:, None] + HOLE)
    in_columns = (place >= left[:, None]) & (place < left[:, None] + HOLE)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill(hole, 0)


def make(kind: str, **options) -> Peer:
    """The peer of that name."""
    return {"reference_like": ReferenceLike, "tuned": Tuned}[kind](**options)


if __name__ == "__main__":
    worker.serve(make)
