"""Write docs/ablations.md from the rows in reid_zoo.models.ablations."""

from __future__ import annotations

from pathlib import Path

from reid_zoo.models.ablation_document import ablation_document

if __name__ == "__main__":
    target = Path(__file__).with_name("ablations.md")
    target.write_text(ablation_document(), encoding="utf-8")
    print(f"wrote {target}")
