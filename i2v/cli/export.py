"""`i2v export`: a model as parts that run without PyTorch, without this library, or in a browser."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from i2v.export import exporter, web_page
from i2v.export.description import WEB
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.pretrained import ModelChoice
from i2v.utils.output_folder import check_replaceable


def export(
    args: Namespace, model: ModelChoice, build: Callable[[], I2VVideoPredictor], say: Callable[..., None]
) -> int:
    """Run the command.

    Args:
        args: The parsed arguments.
        model: The model that is asked for.
        build: Builds its predictor, on the CPU.
        say: Prints a line.

    Returns:
        The exit status, 0.

    Raises:
        Exception: One of ``i2v.errors.USER_ERRORS`` for what cannot be exported or written. Nothing is left then.
    """
    name = Path(model.checkpoint or model.config).stem
    folder = args.out or Path(f"{name}_{args.target.replace('.', '_')}_{args.dtype}")
    made = web_page.MADE_FILES if args.target == WEB else exporter.MADE_FILES
    check_replaceable(folder, made, args.overwrite)  # before the model is loaded
    common = (args.overwrite, lambda part: say(f"exporting {part}"))
    if args.target == WEB:
        content = web_page.PageContent(args.ort, args.video)
        description = web_page.export_page(build(), folder, name, args.dtype, content, *common)
    else:
        description = exporter.export_model(build(), folder, name, args.target, args.dtype, *common)
    size = sum((folder / part.file).stat().st_size for part in description.parts.values())
    say(f"{len(description.parts)} parts, {size / 1e6:.1f} MB: {folder}")
    if args.target == WEB:
        whole = sum(path.stat().st_size for path in folder.iterdir())
        serve = f"python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(folder))}"
        say(f"a page of {whole / 1e6:.1f} MB with them: {serve}")
        say("and open http://127.0.0.1:8000 in a browser")
    return 0
