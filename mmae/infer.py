"""`python -m mmae.infer --catalog tile.zarr`: the photo-z catalogue of a cutout store.

Plan, let Ray actors do the units, merge. Whatever is killed, the same command goes on from the units that are
done, and the catalogue has the same bytes.
"""

import contextlib
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from catalogs import atomic, photoz
from catalogs.cutout_format import Described
from catalogs.cutouts import CutoutStore, open_store
from catalogs.errors import InputRefused, Interrupted, UsageError
from catalogs.photoz import Provenance
from catalogs.schema import CATALOGUE, REJECTS
from mmae import __version__, cli, local_ray
from mmae.actors import Predictor, Task
from mmae.export import CARD, Bundle, open_bundle
from mmae.local_ray import ACTOR_VARIABLES, ray
from mmae.plan import BATCH, Plan, RunFiles, check_input, unit_rows
from mmae.progress import bar

IN_FLIGHT = 2
"""Units given to an actor at a time: one to do, one so that it need not wait for the next."""
MAX_DEATHS = 3
"""Actors that may die over one unit before the run stops."""
SCALE_TOLERANCE = 1e-3
MODEL_VARIABLE = "MMAE_MODEL"
RUNS = Path("runs")


@dataclass(frozen=True)
class Infer:
    """Write the photo-z catalogue of a cutout store.

    Writes TILE.photoz.fits (one row an object with a redshift) and TILE.rejects.fits (the others, with the
    reason), and keeps what it needs to go on after a crash in TILE.photoz/. Every object of the store is in
    one of the two files, once. Run again, the same command goes on; after it is done, it does nothing.
    """

    catalog: Path
    """Cutout store of the tile (Zarr); see README for its layout."""
    model: Path | None = None
    """Model bundle; else $MMAE_MODEL, else the newest under runs/."""
    out: Path | None = None
    """Folder to write to; by default that of the store."""
    workers: int = 0
    """Ray actors; 0: one a GPU, or one a CPU core where there is none."""

    # What the store does not say itself
    bands: tuple[str, ...] = ()
    """Names of its bands, in the order of the array."""
    pixel_scale: float | None = None
    """Arcsec a pixel."""
    zero_point: float | None = None
    """AB magnitude of flux 1."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise UsageError(f"--workers must not be negative, got {self.workers}")


def main(config: Infer) -> None:
    started = time.monotonic()
    bundle = open_bundle(find_bundle(config))
    trained = bundle.card["training_data"]
    print(f"model: {bundle.path} (sha256 {bundle.sha256[:12]}, trained on {trained['survey']})", flush=True)
    described = Described(config.bands, config.pixel_scale, config.zero_point)
    store = open_store(config.catalog, described)
    check_scale(store, bundle)
    files = run_files(config)
    input_sha256 = check_input(store)
    plan = Plan(
        rows=store.n,
        unit_rows=unit_rows(store.n, store.shard_rows),
        batch=BATCH,
        store_fingerprint=store.fingerprint,
        input_sha256=input_sha256,
        model_sha256=bundle.sha256,
        code_version=__version__,
        torch_version=torch.__version__,
    )
    provenance = Provenance(bundle.sha256, trained["survey"], __version__, input_sha256, bundle.z_range)
    files.refuse_foreign_catalogue()
    files.run.mkdir(exist_ok=True)
    try:
        with atomic.owned(files.run):
            files.freeze(plan)
            if files.is_finished(plan):
                print(f"{files.catalogue} is finished already; nothing to do")
                return
            sweep(files)
            task = Task(
                plan=plan,
                store=store.path.resolve(),
                described=described,
                bundle=bundle.path.resolve(),
                parts=files.parts,
                provenance=provenance,
                umask=current_umask(),
            )
            manifests = run_units(task, files, config.workers or default_workers())
            merge(store, plan, files, manifests, provenance)
    except BlockingIOError:
        raise UsageError(f"{files.run} is being written by another process") from None
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {files.run} keeps what is done, the same command goes on") from None
    report(files, manifests, time.monotonic() - started)


# ---------------------------------------------------------------- before the run


def find_bundle(config: Infer) -> Path:
    """--model, else $MMAE_MODEL, else the newest bundle under runs/."""
    if config.model:
        return config.model
    if variable := os.environ.get(MODEL_VARIABLE):
        return Path(variable)
    bundles = sorted(RUNS.glob(f"**/{CARD}"), key=lambda card: card.stat().st_mtime_ns)
    if not bundles:
        raise UsageError(
            f"no model: pass --model, set {MODEL_VARIABLE}, or make a bundle under {RUNS}/ with "
            "`mmae train` and `mmae export` (`make demo` does both on mock data)"
        )
    return bundles[-1].parent


def check_scale(store: CutoutStore, bundle: Bundle) -> None:
    """The model knows one pixel scale and one zero point; it would be silently wrong on others."""
    for name, unit in (("pixel_scale", "arcsec a pixel"), ("zero_point", "AB mag")):
        theirs, ours = getattr(store, name), bundle.card["training_data"][name]
        if abs(theirs - ours) > SCALE_TOLERANCE * ours:
            raise InputRefused(
                f"{store.path} has {name} {theirs} {unit}, the model was trained at {ours}: "
                "rescale the cutouts, or train on such"
            )


def run_files(config: Infer) -> RunFiles:
    """Names of the products; refuses a place that cannot be written to before anything is."""
    store = config.catalog.resolve()
    tile, folder = store.name.removesuffix(".zarr"), (config.out or store.parent).resolve()
    if not tile.isprintable() or tile.startswith("."):
        raise UsageError(f"{tile!r} does not serve as a tile name: rename the store")
    if folder == store or store in folder.parents:
        raise UsageError(f"{folder} lies inside the store: choose another --out")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a directory: create it, or choose another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written to: choose another --out")
    return RunFiles(folder, tile)


def sweep(files: RunFiles) -> None:
    """Remove what a killed run left half-written."""
    for orphan in [
        *files.run.rglob(f"*{atomic.TEMPORARY}"),
        *files.folder.glob(f".{files.tile}.*{atomic.TEMPORARY}"),
    ]:
        orphan.unlink()


def default_workers() -> int:
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def current_umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


# ---------------------------------------------------------------- the run


def run_units(task: Task, files: RunFiles, workers: int) -> list[dict]:
    """Have every unit done, those that are not done yet by Ray actors; gives all manifests in order."""
    plan = task.plan
    manifests = {unit: files.part(unit).finished(plan.sha256) for unit in plan.units}
    todo = deque(unit for unit in plan.units if manifests[unit] is None)
    if len(todo) < len(plan.units):
        print(f"{len(plan.units) - len(todo)} of {len(plan.units)} units were done before")
    if todo:
        workers = min(workers, len(todo))
        print(f"{plan.rows} objects in {len(plan.units)} units of {plan.unit_rows}, workers: {workers}")
        before = [manifest for manifest in manifests.values() if manifest]
        with local_ray.started(workers), progress(plan.rows, before) as advance, files.log.open("a") as log:
            for unit, manifest in schedule(task, todo, workers, log):
                manifests[unit] = manifest
                advance(manifest)
                note(log, f"unit {unit}: {manifest['rows']} rows, {manifest['rejects']} rejects")
    return [manifest for manifest in manifests.values() if manifest is not None]


def schedule(task: Task, todo: deque[int], workers: int, log: TextIO) -> Iterator[tuple[int, dict]]:
    """Keep every actor busy with at most two units; one that dies is replaced and its units done again.

    Raises OSError where actors keep dying over one unit.
    """
    gpus = 1 if torch.cuda.is_available() else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpus, runtime_env={"env_vars": ACTOR_VARIABLES})
    actor_type: Any = remote(Predictor)
    actors = [actor_type.remote(task) for _ in range(workers)]
    in_flight: dict[Any, tuple[int, int]] = {}  # answer -> (actor, unit), in the order of asking
    deaths: Counter[int] = Counter()
    while todo or in_flight:
        load = Counter(actor for actor, _ in in_flight.values())
        for _ in range(min(len(todo), workers * IN_FLIGHT - len(in_flight))):
            idlest, unit = min(range(workers), key=lambda actor: load[actor]), todo.popleft()
            in_flight[actors[idlest].process.remote(unit)] = (idlest, unit)
            load[idlest] += 1
        (answer, *_), _ = ray.wait(list(in_flight))
        actor, unit = in_flight[answer]
        try:
            manifest = ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputRefused | OSError):
                raise error.cause from None  # in its own words, without the actor's traceback
            raise
        except ray.exceptions.RayActorError as error:
            lost = [ref for ref, (owner, _) in in_flight.items() if owner == actor]
            guilty = in_flight[lost[0]][1]  # the one it was at; the next was waiting
            note(log, f"a worker died over unit {guilty}: {error}")
            deaths[guilty] += 1
            if deaths[guilty] == MAX_DEATHS:
                raise OSError(
                    f"{MAX_DEATHS} workers died over unit {guilty} (rows {task.plan.span(guilty)}); "
                    f"{log.name} says how; the same command goes on from there"
                ) from error
            todo.extendleft(in_flight.pop(ref)[1] for ref in reversed(lost))
            actors[actor] = actor_type.remote(task)
        else:
            del in_flight[answer]
            yield unit, manifest


def note(log: TextIO, text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, file=log, flush=True)


@contextlib.contextmanager
def progress(rows: int, before: list[dict]) -> Iterator[Callable[[dict], None]]:
    """A bar over objects, with the rate and the rejects so far; the function it gives takes a manifest."""
    rejects = sum(manifest["rejects"] for manifest in before)
    done = rejects + sum(manifest["rows"] for manifest in before)
    started, now = time.monotonic(), 0

    fields = ("{task.fields[rate]:.0f} objects/s", "{task.fields[rejects]} rejects")
    with bar("infer", *fields) as shown:
        task = shown.add_task("infer", total=rows, completed=done, rate=0.0, rejects=rejects)

        def advance(manifest: dict) -> None:
            nonlocal now, rejects
            units_rows = manifest["rows"] + manifest["rejects"]
            now, rejects = now + units_rows, rejects + manifest["rejects"]
            shown.update(task, advance=units_rows, rate=now / (time.monotonic() - started), rejects=rejects)

        yield advance


# ---------------------------------------------------------------- after the run


def merge(
    store: CutoutStore, plan: Plan, files: RunFiles, manifests: list[dict], provenance: Provenance
) -> None:
    """Check that every object is there once, then join the parts."""
    parts = [files.part(unit) for unit in plan.units]
    for part, (start, stop) in zip(parts, map(plan.span, plan.units), strict=True):
        written = [
            block["OBJECT_ID"]
            for path, table in ((part.catalogue, CATALOGUE), (part.rejects, REJECTS))
            for block in photoz.read_blocks(path, table)
        ]
        if not np.array_equal(
            np.sort(np.concatenate(written)), np.sort(store.column("object_id", start, stop))
        ):
            raise OSError(
                f"unit {part.unit} does not hold the objects of rows {start} to {stop}: remove {files.run}"
            )
    photoz.merge(parts, manifests, provenance, files.catalogue, files.rejects)
    files.finish(plan)


def report(files: RunFiles, manifests: list[dict], seconds: float) -> None:
    rows, rejects = (sum(manifest[key] for manifest in manifests) for key in ("rows", "rejects"))
    reasons: Counter[str] = Counter()
    for manifest in manifests:
        reasons.update(manifest["reasons"])
    listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    print(f"wrote {files.catalogue}: {rows} objects")
    print(f"wrote {files.rejects}: {rejects} objects{f' ({listed})' if listed else ''}")
    print(f"{rows + rejects} objects in {seconds:.1f} s")


if __name__ == "__main__":
    sys.exit(cli.run(main, Infer, sys.argv[1:], "python -m mmae.infer"))
