"""MLflow gets the reports of metrics.jsonl; a server that does not answer does not stop training."""

import json

import mlflow

from mmae.training import mlflow_mirror
from mmae.training.runlog import RunLog

CONFIG = {"lr": 1e-4, "model": {"depth": 2}}


def test_reports_arrive_in_one_run_however_often_it_resumes(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracking").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for step in (10, 20):
        RunLog(tmp_path, CONFIG, step, False, True).report(
            "train", step, {"total": step / 10, "|dz|>0.15": 0.5}
        )
    run_id = json.loads((tmp_path / mlflow_mirror.RUN_FILE).read_text())["run_id"]
    mlflow.flush_async_logging()
    client = mlflow.MlflowClient()
    history = client.get_metric_history(run_id, "train/total")
    assert [(metric.step, metric.value) for metric in history] == [(10, 1.0), (20, 2.0)]
    assert client.get_run(run_id).data.metrics["train/dz above 0.15"] == 0.5
    assert client.get_run(run_id).data.params == {"lr": "0.0001", "model.depth": "2"}


def test_an_unreachable_server_is_reported_once_and_does_not_stop_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    log = RunLog(tmp_path, CONFIG, 0, False, True)
    for step in (1, 2):
        log.report("train", step, {"total": 1.0})
    assert capsys.readouterr().err.count("MLflow gets no reports") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
