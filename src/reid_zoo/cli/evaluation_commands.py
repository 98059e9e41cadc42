"""`reid-zoo evaluate` and `reid-zoo compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CheckpointError, ConfigurationError, EvaluationError
from . import console
from .dataset_commands import loader_options

if TYPE_CHECKING:
    from ..data import PersonDataset
    from ..encoding import PersonEncoder
    from ..evaluation.robustness import RobustnessPoint

__all__ = ["compare", "evaluate"]

_SHEET_QUERIES = 6


def evaluate(
    model: Annotated[str, typer.Argument(help="Model: a folder or a Hub id.")],
    dataset: Annotated[str, typer.Option(help="Name of the data set (see `reid-zoo datasets list`).")],
    data_root: Annotated[Path, typer.Option(help="Folder of the data set, or the one that contains it.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    protocol: Annotated[
        str | None,
        typer.Option(help="text-to-image, image-to-text or image-to-image; by default what the data set is for."),
    ] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Re-rank with k-reciprocal neighbours (image-to-image).")
    ] = False,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Late interaction (MGCC): compare tokens with this many images per sentence only; says what is lost.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for tables, plots and ranked lists; `reid-zoo compare` reads it.")
    ] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Also measure with occluded gallery images (needs --report).")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images or captions per step.")] = 64,
    sheet: Annotated[Path | None, typer.Option(help="Write the answers to a few queries as a picture (.png).")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of the data set's loader, e.g. test_size=1600."),
    ] = None,
    accept_retracted: Annotated[
        bool, typer.Option("--accept-retracted", help="Read a data set that its authors have withdrawn.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a model on a data set: Rank-1, -5, -10, mAP, mINP with 95 % intervals."""
    from ..data import load_dataset
    from ..encoding import PersonEncoder
    from ..evaluation.contact_sheet import check_sheet_path, draw_dataset_answers
    from ..evaluation.figures import check_report_packages
    from ..evaluation.report import write_report
    from ..evaluation.runs import run_evaluation
    from ..evaluation.uncertainty import bootstrap_intervals

    if sheet is not None:
        check_sheet_path(sheet)  # before the work, not after it
    if robustness and report is None:
        raise ConfigurationError("--robustness writes a table and a plot: give --report FOLDER for them.")
    if report is not None and report.exists() and not report.is_dir():
        raise ConfigurationError(f"{report} is a file; give a folder for the report.")
    if report is not None:
        check_report_packages()  # before the work, not after it
    records = load_dataset(
        dataset, data_root, split, require_identities=True, **loader_options(settings, accept_retracted)
    )
    _warn_about_leakage(model, records)
    encoder = PersonEncoder.from_pretrained(model, batch_size=batch_size)
    others = {"--report": report, "--sheet": sheet, "--rerank": rerank or None, "--protocol": protocol}
    if protocol is None and _has_random_galleries(records, encoder):
        _refuse("random galleries, as here, are measured", others | {"--candidates": candidates})
        _evaluate_trials(encoder, records, batch_size, progress, as_json, model, split)
        return
    if candidates is not None:
        _refuse("two stages are measured", others)
        _evaluate_two_stages(encoder, records, candidates, batch_size, progress, as_json, model, split)
        return
    run = run_evaluation(
        encoder,
        records,
        protocol=protocol,  # type: ignore[arg-type]  # checked there
        reranking={} if rerank else None,
        batch_size=batch_size,
        progress=progress,
    )
    metrics = run.metrics
    intervals = bootstrap_intervals(metrics, person_ids=run.query_person_ids)
    result: dict[str, Any] = {
        "model": model,
        "dataset": records.label,
        "split": split,
        "protocol": run.protocol,
        "reranked": run.reranked,
        "metrics": {name: round(value, 4) for name, value in metrics.as_dict().items()},
        "intervals": {name: [round(value.low, 4), round(value.high, 4)] for name, value in intervals.items()},
        "num_queries": metrics.num_queries,
        "num_gallery_images": metrics.num_gallery,
        "num_skipped_queries": metrics.num_skipped_queries,
    }
    if sheet is not None:
        draw_dataset_answers(encoder, records, sheet, num_queries=_SHEET_QUERIES)
        console.say(f"sheet written to {sheet}")
    if report is not None:
        written = write_report(run, report, progress=progress)
        for note in written.get("notes", ()):
            console.note(note)
        result["report"] = str(report)
    if robustness and report is not None:
        result["robustness"] = _measure_robustness(encoder, records, report, batch_size, progress)
    if as_json:
        console.print_json(result)
        return
    print(
        f"{model} on {records.label} ({split}, {run.protocol}{', re-ranked' if run.reranked else ''}): "
        f"{metrics.num_queries} queries, {metrics.num_gallery} gallery items, "
        f"{metrics.num_skipped_queries} queries without a positive"
    )
    console.print_table(
        "",
        ("", *intervals),
        [
            ("%", *(f"{value.value:.2f}" for value in intervals.values())),
            ("95 %", *(f"{value.low:.1f}-{value.high:.1f}" for value in intervals.values())),
        ],
    )
    for point in result.get("robustness", ()):
        print(
            f"{point['num_occluded']} images occluded ({100 * point['fraction']:g} %): R1 {point['metrics']['R1']:.2f}, "
            f"mAP {point['metrics']['mAP']:.2f}"
        )
    if report is not None:
        print(f"report written to {report}")


def _refuse(what: str, options: dict[str, Any]) -> None:
    """Refuse options that would do nothing."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigurationError(f"{what} without {', '.join(given)}; leave that out.")


def _warn_about_leakage(model: str, records: PersonDataset) -> None:
    """Warn where a model was trained on a set that may hold people of this one; the recipe lies beside the model."""
    import yaml

    from ..data.leakage import warn_about_leakage

    recipe = Path(model) / "recipe.yaml"
    if recipe.is_file():
        try:
            content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise CheckpointError(f"{recipe} is damaged: it is no YAML.") from error
        if isinstance(content, dict) and isinstance(content.get("dataset"), str):
            warn_about_leakage(content["dataset"], records.name)


def _has_random_galleries(records: PersonDataset, encoder: PersonEncoder) -> bool:
    """Whether galleries are drawn: for VehicleID's test split, and for images that nobody divided into queries and gallery."""
    from ..evaluation.runs import natural_protocol

    if records.name == "vehicleid" and records.split == "test":
        return True
    return not encoder.supports_text and natural_protocol(records) != "image-to-image"


def _evaluate_trials(
    encoder: PersonEncoder,
    records: PersonDataset,
    batch_size: int,
    progress: bool,
    as_json: bool,
    model: str,
    split: str,
) -> None:
    from ..evaluation.gallery_trials import evaluate_gallery_trials
    from ..evaluation.record_encoding import encode_records

    features = encode_records(encoder, records.records, batch_size=batch_size, progress=progress)
    found = evaluate_gallery_trials(features, [record.person_id for record in records])
    deviations = found.deviations()
    if as_json:
        console.print_json(
            {
                "model": model,
                "dataset": records.label,
                "split": split,
                "protocol": "image-to-image, random galleries",
                "num_trials": len(found.trials),
                "seed": found.seed,
                "metrics": {name: round(value, 4) for name, value in found.as_dict().items()},
                "deviations": {name: round(value, 4) for name, value in deviations.items()},
                "num_queries": found.trials[0].num_queries,
                "num_gallery_images": found.trials[0].num_gallery,
                "num_skipped_queries": found.trials[0].num_skipped_queries,
            }
        )
        return
    print(f"{model} on {records.label} ({split}): {found}")


def _evaluate_two_stages(
    encoder: PersonEncoder,
    records: PersonDataset,
    candidates: int,
    batch_size: int,
    progress: bool,
    as_json: bool,
    model: str,
    split: str,
) -> None:
    from ..evaluation.protocols import evaluate_in_two_stages

    found = evaluate_in_two_stages(
        encoder, records, num_candidates=candidates, batch_size=batch_size, progress=progress
    )
    if as_json:
        console.print_json(
            {
                "model": model,
                "dataset": records.label,
                "split": split,
                "protocol": "text-to-image, two stages",
                "num_candidates": candidates,
                "metrics": {name: round(value, 4) for name, value in found.metrics.as_dict().items()},
                "positive_recall": round(found.positive_recall, 4),
                "query_recall": round(found.query_recall, 4),
                "num_queries": found.metrics.num_queries,
                "num_gallery_images": found.metrics.num_gallery,
                "num_skipped_queries": found.metrics.num_skipped_queries,
            }
        )
        return
    print(f"{model} on {records.label} ({split}), {candidates} candidates per sentence: {found.metrics}")
    print(
        f"the first stage keeps {found.positive_recall:.2f} % of the right images, and at least one for "
        f"{found.query_recall:.2f} % of the sentences"
    )


def _measure_robustness(
    encoder: PersonEncoder, records: PersonDataset, report: Path, batch_size: int, progress: bool
) -> list[dict[str, Any]]:
    """The curve as a table and a plot in the report's folder."""
    import json

    from ..evaluation.figures import plot_robustness
    from ..evaluation.robustness import evaluate_robustness

    points = evaluate_robustness(encoder, records, batch_size=batch_size, progress=progress)
    fractions = [100 * point.severity.fraction for point in points]
    plot_robustness(
        {name: (fractions, [point.metrics[name] for point in points]) for name in ("R1", "mAP")},
        report / "robustness.png",
        xlabel="occluded gallery images (%)",
    )
    table = [_robustness_entry(point) for point in points]
    (report / "robustness.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return table


def _robustness_entry(point: RobustnessPoint) -> dict[str, Any]:
    severity = point.severity
    return {
        "fraction": severity.fraction,
        "area": severity.area,
        "seed": severity.seed,
        "num_occluded": point.num_occluded,
        "metrics": {name: round(value, 4) for name, value in point.metrics.items()},
    }


def compare(
    reports: Annotated[
        list[Path], typer.Argument(help="Folders written by `reid-zoo evaluate --report`, two or more.")
    ],
    output: Annotated[Path | None, typer.Option(help="Folder for comparison.json and cmc.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put evaluations side by side; tells whether each differs from the first by more than chance."""
    from ..evaluation.comparison import compare_reports, write_comparison
    from ..evaluation.report import read_report

    if len(reports) < 2:
        raise EvaluationError("a comparison needs at least two reports.")
    runs = [read_report(folder) for folder in reports]
    comparison = compare_reports(runs)
    if output is not None:
        write_comparison(runs, comparison, output)
    if as_json:
        console.print_json(comparison)
        return
    first = comparison["runs"][0]
    print(
        f"{first['dataset']} ({first['split']}, {first['protocol']}), {first['num_queries']} queries; p: paired "
        "randomisation test against the first, by person"
    )
    names = ("R1", "R5", "R10", "mAP", "mINP")
    rows = []
    for run in comparison["runs"]:
        cells = [run["name"]]
        for name in names:
            cell = f"{run['metrics'][name]:.2f}"
            if run["against_first"] is not None:
                difference = run["against_first"][name]
                cell += f"  {difference['difference']:+.2f} (p {difference['p_value']:.3f})"
            cells.append(cell)
        rows.append(tuple(cells))
    console.print_table("", ("run", *names), rows)
    if output is not None:
        print(f"comparison written to {output}")
