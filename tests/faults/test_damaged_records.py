"""Every field of every JSON file of ours deleted, emptied and retyped, and every file cut or scribbled on.

What reads it ends with a documented code and one sentence, or gives the result that it gives undamaged.
"""

import json
import shutil
from pathlib import Path

import pytest
from conftest import recipe

from catalogs import ingest
from catalogs.store.format import manifest_path
from jobs import starts
from mmae import cli, train
from mmae.bundles.bundle import CARD
from mmae.production import index
from mmae.production.plan import RunFiles
from mmae.training import mlflow_mirror, runlog

CODES = (cli.OK, cli.USAGE, cli.REFUSED, cli.INTERRUPTED, cli.IO_FAILED)
SHOWN = 12
"""Failures listed."""


def edits(node, at=()):
    """All (path to a field, new value or None for none) of one JSON value."""
    fields = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(fields)[:12]:
        emptied = type(value)() if value is not None else 0
        retyped = {"odd": 1} if isinstance(value, str | list) else [] if isinstance(value, dict) else "odd"
        for new in ([], [emptied], [None], [retyped]):
            if new != [value]:
                yield (*at, key), new
        yield from edits(value, (*at, key))


def edited(content, at, new):
    content = json.loads(json.dumps(content))
    node = content
    for key in at[:-1]:
        node = node[key]
    if new:
        node[at[-1]] = new[0]
    else:
        del node[at[-1]]
    return content


def variants(text):
    """(what was done, the bytes of the damaged file)."""
    for name, whole in {"empty": "", "null": "null", "list": "[]", "text": '"odd"', "cut": text[:-9]}.items():
        yield name, whole.encode()
    yield "not UTF-8", text.encode().replace(b"a", b"\xff")
    yield "deep", b"[" * 100_000
    yield "huge number", b'{"version": ' + b"9" * 5000 + b"}"
    lines = text.splitlines()
    records = [json.loads(line) for line in lines] if text.startswith('{"') else [json.loads(text)]
    for number, record in enumerate(records[:2]):
        for at, new in edits(record):
            changed = json.dumps(edited(record, at, new), indent=None if len(records) > 1 else 1)
            whole = [*lines[:number], changed, *lines[number + 1 :]] if len(records) > 1 else [changed]
            yield f"{number}: {at} -> {new}", ("\n".join(whole) + "\n").encode()


class Trials:
    """Tries a reader with every variant of a file."""

    def __init__(self, capsys):
        self.capsys, self.count, self.failures = capsys, 0, []

    def run(self, file, read):
        """`read` gives an exit code, after it has asserted that the result is right where that is 0."""
        self.tried(file, variants(file.read_text()), read)

    def tried(self, file, damages, read):
        whole = file.read_bytes()
        for what, damaged in damages:
            file.write_bytes(damaged)
            self.count += 1
            try:
                code = read()
                words = self.capsys.readouterr().err
                assert code in CODES
                assert words.count("\n") == (code != cli.OK), words
            except BaseException as error:  # noqa: BLE001 - any of them is what is looked for
                self.capsys.readouterr()
                self.failures.append(f"{file.name} {what}: {type(error).__name__} {str(error)[:300]}")
            file.write_bytes(whole)

    def report(self):
        print(f"{self.count} trials")
        assert self.count > 20
        assert not self.failures, "\n".join([str(len(self.failures)), *self.failures[:SHOWN]])


@pytest.fixture
def trials(capsys):
    made = Trials(capsys)
    yield made
    made.report()


@pytest.fixture(scope="module")
def finished(survey, bundle, tmp_path_factory):
    """Folder with a finished tile, and its index."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(survey / "rubin_tile.zarr", folder / "rubin_tile.zarr")
    shutil.copy(manifest_path(survey / "rubin_tile.zarr"), folder)
    assert infer(folder, bundle) == cli.OK
    index.write(folder, [])
    return folder


def infer(folder, bundle, *flags):
    catalog = ["--catalog", str(folder / "rubin_tile.zarr"), "--model", str(bundle)]
    return cli.run_command("infer", [*catalog, "--workers", "1", *flags])


def products(folder):
    return {file.name: file.read_bytes() for file in Path(folder).glob("*.fits")}


@pytest.mark.slow
def test_the_card_of_a_model(trials, finished, bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    trials.run(copy / CARD, lambda: infer(finished, copy, "--dry-run"))
    trials.run(copy / CARD, lambda: cli.run_command("embed", ["--catalog", "x.zarr", "--model", str(copy)]))


@pytest.mark.slow
def test_the_plan_the_record_and_the_manifests_of_a_tile(trials, finished, bundle):
    files, whole = RunFiles(finished, "rubin_tile"), products(finished)
    part, plan = files.part(0), json.loads(files.part(0).manifest.read_text())["plan"]

    def again():
        code = infer(finished, bundle)
        assert products(finished) == whole
        return code

    def status():
        return cli.run_command("status", [str(files.run)]) or cli.run_command("status", [str(finished)])

    def not_believed():
        assert part.finished(plan) is None
        return status()

    for read in (again, status):
        trials.run(files.plan, read)
        trials.run(files.finished, read)
    trials.run(part.manifest, not_believed)


@pytest.mark.slow
def test_the_index_of_a_folder(trials, finished, bundle):
    whole = index.read(finished)

    def again():
        index.write(finished, [])
        assert (index.read(finished) == whole).all()
        return cli.OK

    lines = index.path(finished).read_text().splitlines()
    without = (lines[:k] + lines[k + 1 :] for k in range(len(lines)))
    cut = (line[: len(line) // 2] for line in lines)
    halved = ([*lines[:k], half, *lines[k + 1 :]] for k, half in enumerate(cut))
    variants = ["\n".join(each) + "\n" for each in (*without, *halved, [], ["\0"], ["# %ECSV 1.0", "---"])]
    for read in (again, lambda: cli.run_command("status", [str(finished)])):
        trials.tried(index.path(finished), ((text[:60], text.encode()) for text in variants), read)


@pytest.mark.slow
def test_the_manifest_of_a_store(trials, finished):
    manifest = manifest_path(finished / "rubin_tile.zarr")
    for command in ("info", "verify"):
        trials.run(
            manifest, lambda c=command: cli.run_command("store", [c, str(finished / "rubin_tile.zarr")])
        )


@pytest.mark.slow
def test_the_records_of_an_interrupted_ingest(trials, survey, tmp_path, monkeypatch):
    """What is damaged is written again, and the store is the same."""
    from catalogs.store import shard_writer

    store, partial = tmp_path / "a.zarr", tmp_path / "a.zarr.partial"
    settings = ingest.Ingest(survey / "galaxies.hdf5", store, shard_rows=64)
    ingest.main(settings)
    whole = manifest_path(store).read_text()
    shutil.rmtree(store)
    manifest_path(store).unlink()

    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, "_finish", stop)
        with pytest.raises(Stopped):
            ingest.main(settings)
    interrupted = tmp_path / "interrupted"
    partial.rename(interrupted)

    for name in ("begun.json", "shard-000001.json"):
        record = interrupted / name
        assert shard_writer._read_record(interrupted, name)

        def not_believed(name=name):
            assert shard_writer._read_record(interrupted, name) is None
            return cli.OK

        trials.run(record, not_believed)
        shutil.copytree(interrupted, partial)
        (partial / name).write_bytes(record.read_bytes()[:-9])
        ingest.main(settings)
        assert manifest_path(store).read_text() == whole
        shutil.rmtree(store)
        manifest_path(store).unlink()


@pytest.mark.slow
def test_the_log_and_the_records_of_a_training(trials, survey, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train.main(recipe("mmae", survey / "train.zarr", run, epochs=1))

    def status():
        return cli.run_command("status", [str(run)])

    def resumed():
        runlog.RunLog(run, {}, step=100, validated=True, enabled=True).writer.close()
        return cli.OK

    def counted():
        return cli.exit_code(lambda: starts.main(starts.Starts(run)), "jobs.starts")

    for file, read in (("config.json", status), (runlog.METRICS, status), (runlog.METRICS, resumed)):
        trials.run(run / file, read)
    (run / "slurm").mkdir()
    starts.main(starts.Starts(run))
    trials.run(run / "slurm" / starts.STARTS, counted)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracking").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow_mirror.open_mirror(run, {})
    assert (run / mlflow_mirror.RUN_FILE).exists()

    def mirrored():
        assert mlflow_mirror.open_mirror(run, {})
        return cli.OK

    trials.run(run / mlflow_mirror.RUN_FILE, mirrored)
