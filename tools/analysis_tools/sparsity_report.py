"""Report how sparse a trained model of mmpretrain, mmseg or mmdet is: density, parameters and MACs of every weight.

    python tools/analysis_tools/sparsity_report.py configs/sw_imagenet.py epoch_300.pth --out report

writes report/sparsity.csv, report/density.png and report/strips.png, and prints the table. The masks are those that
sw_mm.SparseTrainingHook saved; where CKPT has none, what is zero counts as pruned. "sparse" MACs are those of kept
numbers alone, as papers print them; "executed" ones are really done, zeros included. Of a detector, the backbone and
the neck are counted.
"""

import argparse
import sys
from pathlib import Path

import sw_mm.registry  # noqa: F401  (also stands in for operators that mmcv may lack)
from sw_mm.analysis.sparsity import draw_densities, draw_strips, empty_taps, sparsity, strip_masks, table, write_csv
from sw_mm.checkpoint import load_whole
from sw_mm.checkpoint.download import fetch
from sw_mm.compat.torch_load import safe_load
from sw_mm.deploy import build_model
from sw_mm.sparse import saved_masks


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0],
        epilog=__doc__.partition('\n\n')[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', metavar='CONFIG', type=Path, help='config of the model in its training form')
    parser.add_argument('checkpoint', metavar='CKPT', help='its weights: a path or an https URL')
    parser.add_argument('--out', type=Path, default=Path('sparsity'), help='folder to write to (%(default)s)')
    parser.add_argument('--shape', type=int, nargs=2, default=(224, 224), metavar=('H', 'W'), help='of an image')
    args = parser.parse_args(argv)
    try:
        model = build_model(args.config)
        load_whole(model, args.checkpoint)
        content = safe_load(fetch(args.checkpoint))
        masks = saved_masks(content['sparse'], model) if 'sparse' in content else None
        rows = sparsity(model, masks, (getattr(model.backbone, 'in_channels', 3), *args.shape), _run)
        args.out.mkdir(parents=True, exist_ok=True)
        write_csv(rows, args.out / 'sparsity.csv')
        draw_densities(rows, args.out / 'density.png')
        strips = strip_masks(model, masks)
        if strips:
            draw_strips(strips, args.out / 'strips.png')
    except (OSError, ValueError) as error:
        sys.exit(f'sparsity_report: {error}')
    print(table(rows))
    dropped, taps, empty = empty_taps(strips)
    print(f'{dropped} of {taps} taps of the large kernels are empty in all channels, {empty:.1%} in a single one')


def _run(model, x):
    """Run a classifier or segmentor as a whole, and of a detector what needs no boxes."""
    if hasattr(model, 'decode_head') or hasattr(model, 'head'):
        return model(x, mode='tensor')
    return model.extract_feat(x)


if __name__ == '__main__':
    main()
