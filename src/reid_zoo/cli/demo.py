"""`reid-zoo demo`: the main job on embedded defaults, from nothing to ranked pictures."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError, ModelMismatchError
from . import console

__all__ = ["FULL", "QUICK", "DemoSettings", "demo"]

_STATE_FILE = "demo.json"
_STEPS = ("data", "training", "evaluation", "gallery", "search")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """Sizes of a demo run.

    Attributes:
        identities: People drawn.
        images_per_identity: Images of each.
        test_identities: People kept for the test, never trained on.
        num_epochs: Passes over the training captions.
        num_queries: Test captions searched for.
    """

    identities: int
    images_per_identity: int
    test_identities: int
    num_epochs: int
    num_queries: int


FULL = DemoSettings(identities=560, images_per_identity=4, test_identities=60, num_epochs=16, num_queries=5)
QUICK = DemoSettings(identities=140, images_per_identity=4, test_identities=20, num_epochs=20, num_queries=3)

_OWN_QUERY = "A woman in a red coat with a black backpack."


class _Steps:
    """Runs the steps in order and remembers the finished ones, so that a rerun continues."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.file = folder / _STATE_FILE
        self.state: dict[str, Any] = {"settings": settings, "steps": {}}
        if self.file.is_file():
            try:
                state = json.loads(self.file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ConfigurationError(f"{self.file} is damaged; remove it or use another --out folder.") from error
            if state.get("settings") != settings:
                raise ConfigurationError(
                    f"{folder} holds a demo with other settings ({state.get('settings')}); use another --out folder."
                )
            self.state = state
        elif folder.exists() and any(folder.iterdir()):
            raise ConfigurationError(f"{folder} is not empty and holds no demo; use another --out folder.")
        folder.mkdir(parents=True, exist_ok=True)
        self._save()

    def _save(self) -> None:
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.state, indent=2), encoding="utf-8")
        temporary.replace(self.file)

    def run(self, name: str, title: str, product: Path, step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """One step, unless it is done and what it made is still there; a step that is redone has the later ones redone."""
        number = _STEPS.index(name) + 1
        if name in self.state["steps"] and not product.exists():
            for later in _STEPS[number - 1 :]:
                self.state["steps"].pop(later, None)
            self._save()
        if name in self.state["steps"]:
            console.say(f"[{number}/{len(_STEPS)}] {title}: done before")
        else:
            console.say(f"[{number}/{len(_STEPS)}] {title} ...")
            started = time.monotonic()
            result = step()
            self.state["steps"][name] = {"seconds": round(time.monotonic() - started, 1), **result}
            self._save()
            facts = ", ".join(f"{key} {value}" for key, value in result.items() if not isinstance(value, dict | list))
            console.say(f"      {facts} ({self.state['steps'][name]['seconds']} s)")
        found: dict[str, Any] = self.state["steps"][name]
        return found


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("reid-zoo-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of data and training.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Less data, less training: one to two minutes.")] = False,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Draw pedestrians, train CFine on them, measure it, index a gallery, search it, make pictures.

    Interrupt it at any time: the same command continues where it was.
    """
    settings = QUICK if quick else FULL
    steps = _Steps(out, {"seed": seed, **asdict(settings)})
    data, model, gallery = out / "data", out / "model", out / "people.gallery"

    def draw() -> dict[str, Any]:
        from ..data import SyntheticPedestrians

        people = SyntheticPedestrians(
            settings.identities,
            settings.images_per_identity,
            seed=seed,
            val_identities=0,
            test_identities=settings.test_identities,
        )
        people.write(data, progress=progress)
        return {"people": settings.identities, "images": len(people), "folder": str(data)}

    def learn() -> dict[str, Any]:
        from ..training import load_recipe, train

        recipe = load_recipe("cfine-tiny", [f"optimization.num_epochs={settings.num_epochs}"])
        console.quiet_libraries()
        summary = train(recipe, data_root=data, output_dir=model, seed=seed, progress=progress, log=console.say)
        return {"steps": summary.steps, "model": str(model)}

    def measure() -> dict[str, Any]:
        from ..data import load_dataset
        from ..evaluation import evaluate_model
        from ..evaluation.contact_sheet import draw_dataset_answers

        records = load_dataset("cuhk-pedes", data, "test")
        encoder = _encoder(model)
        metrics = evaluate_model(encoder, records, progress=progress)
        draw_dataset_answers(encoder, records, out / "sheets" / "test_queries.png", num_queries=settings.num_queries)
        return {
            "queries": metrics.num_queries,
            "gallery_images": metrics.num_gallery,
            "metrics": {name: round(value, 2) for name, value in metrics.as_dict().items()},
        }

    def build_gallery() -> dict[str, Any]:
        from ..data import load_dataset
        from ..gallery import Gallery

        encoder = _encoder(model)
        try:
            opened = Gallery.create(gallery, encoder, exist_ok=True)
        except ModelMismatchError:  # the model was lost and trained again; the gallery is ours and quickly made
            shutil.rmtree(gallery)
            opened = Gallery.create(gallery, encoder)
        with opened:
            opened.add(load_dataset("cuhk-pedes", data, "test"), progress=progress)
            return {"images": len(opened), "gallery": str(gallery)}

    def search() -> dict[str, Any]:
        from ..data import load_dataset
        from ..evaluation.contact_sheet import SheetRow, SheetTile, draw_contact_sheet
        from ..gallery import Gallery

        records = load_dataset("cuhk-pedes", data, "test")
        first = {record.person_id: record for record in reversed(records.records)}
        people = list(first.values())[:: max(1, len(first) // settings.num_queries)][: settings.num_queries]
        queries = [(record.captions[0], record.person_id) for record in people] + [(_OWN_QUERY, None)]
        answers, sheets = [], []
        with Gallery.open(gallery, _encoder(model)) as opened:
            for number, (query, person) in enumerate(queries, start=1):
                hits = opened.search(query, top_k=10)
                tiles = [
                    SheetTile(
                        hit.image,
                        f"{hit.rank}   {hit.score:.3f}",
                        None if person is None else hit.metadata.get("person_id") == person,
                    )
                    for hit in hits
                ]
                sheet = draw_contact_sheet([SheetRow(query, tiles)], out / "sheets" / f"search_{number}.png")
                sheets.append(str(sheet))
                answers.append(
                    {
                        "query": query,
                        "person_id": person,
                        "hits": [{"rank": hit.rank, "score": hit.score, "image": hit.image} for hit in hits],
                    }
                )
        return {"queries": len(queries), "sheets": sheets, "answers": answers}

    sheets = out / "sheets"
    steps.run("data", f"drawing {settings.identities} people", data / "CUHK-PEDES" / "reid_raw.json", draw)
    steps.run("training", "training CFine (recipe cfine-tiny) from scratch", model / "model.safetensors", learn)
    title = f"searching for {settings.test_identities} people it has never seen"
    measured = steps.run("evaluation", title, sheets / "test_queries.png", measure)
    steps.run("gallery", "indexing a gallery", gallery / "gallery.json", build_gallery)
    last_sheet = sheets / f"search_{settings.num_queries + 1}.png"
    found = steps.run("search", "searching the gallery with sentences", last_sheet, search)

    metrics = measured["metrics"]
    report = {
        "label": "measured by us on synthetic data (drawn people); not comparable with published figures",
        "command": f"reid-zoo demo --seed {seed}" + (" --quick" if quick else ""),
        "settings": steps.state["settings"],
        "metrics": metrics,
        "chance_R1": round(100 / settings.test_identities, 2),
        "seconds": {name: step["seconds"] for name, step in steps.state["steps"].items()},
        "answers": found["answers"],
        "files": {"data": str(data), "model": str(model), "gallery": str(gallery), "sheets": found["sheets"]},
    }
    (out / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
    (out / "README.md").write_text(_summary(report, measured["queries"], out), encoding="utf-8")
    if as_json:
        console.print_json(report)
        return
    print()
    console.print_table(
        f"text-to-image retrieval, {measured['queries']} captions of {settings.test_identities} unseen people "
        f"(chance Rank-1: {report['chance_R1']} %)",
        tuple(metrics),
        [tuple(f"{value:.2f}" for value in metrics.values())],
    )
    for answer in found["answers"]:
        print(f"\n{answer['query']}")
        for hit in answer["hits"][:3]:
            print(f"  {hit['rank']}. {hit['score']:.3f}  {hit['image']}")
    print(
        f"\npictures: {sheets}\nmodel:    {model}\ngallery:  {gallery}\n"
        f"report:   {out / 'report.json'}, {out / 'README.md'}\n"
        f'try:      reid-zoo search {gallery} "a man in a blue jacket" --sheet result.png'
    )


def _summary(report: dict[str, Any], num_queries: int, out: Path) -> str:
    """What the demo did, as a page to read; its pictures are named relative to it."""
    metrics, seconds = report["metrics"], report["seconds"]
    lines = [
        "# What this folder holds",
        "",
        f"Made by `{report['command']}` in {sum(seconds.values()):.0f} s of work.",
        "",
        f"Text-to-image retrieval of {report['settings']['test_identities']} people that the model has never seen, "
        f"{num_queries} captions; chance Rank-1: {report['chance_R1']} %. The figures were {report['label']}.",
        "",
        "| " + " | ".join(metrics) + " |",
        "|" + " --- |" * len(metrics),
        "| " + " | ".join(f"{value:.2f}" for value in metrics.values()) + " |",
        "",
        "Steps: " + ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()) + ".",
        "",
        "- `data/`: drawn people in the CUHK-PEDES layout",
        "- `model/`: CFine, trained on them",
        "- `people.gallery/`: the test people, indexed",
        "- `report.json`: all figures and answers",
        "",
        "![Answers to test captions; green: the right person](sheets/test_queries.png)",
    ]
    for answer, sheet in zip(report["answers"], report["files"]["sheets"], strict=True):
        lines += ["", f"> {answer['query']}", "", f"![The ten best images]({Path(sheet).relative_to(out).as_posix()})"]
    return "\n".join(lines) + "\n"


def _encoder(model: Path) -> Any:
    from ..encoding import PersonEncoder

    console.quiet_libraries()
    return PersonEncoder.from_pretrained(model)
