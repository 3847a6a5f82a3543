"""Fold a trained model of mmpretrain, mmseg or mmdet for inference.

The outputs on random images are compared before and after, and only then is OUT written. It loads into the same config
with `model.backbone.deploy=True` for the full form, and `model.backbone.deploy=official` for the official one:

    python tools/model_converters/reparameterize.py configs/sw_imagenet.py epoch_300.pth sw_tiny_deploy.pth
    mim test mmpretrain configs/sw_imagenet.py --checkpoint sw_tiny_deploy.pth --cfg-options model.backbone.deploy=True
"""

import argparse
import logging
import sys
from pathlib import Path

import sw_mm.registry  # noqa: F401  (also stands in for operators that mmcv may lack)
from sw_mm.checkpoint import load_whole, save
from sw_mm.deploy import build_model, switch_and_compare


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0],
        epilog=__doc__.partition('\n\n')[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', metavar='CONFIG', type=Path, help='config of the model in its training form')
    parser.add_argument('checkpoint', metavar='CKPT', help='its weights: a path or an https URL')
    parser.add_argument('target', metavar='OUT', type=Path, help='file to write')
    parser.add_argument(
        '--form',
        choices=['full', 'official'],
        default='full',
        help="fold all that is linear, or what each backbone's official code folds (%(default)s)",
    )
    parser.add_argument('--force', action='store_true', help='replace OUT if it is there')
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        if args.target.exists() and not args.force:
            raise FileExistsError(f'{args.target} exists; choose another name, or pass --force')
        model = build_model(args.config)
        meta = load_whole(model, args.checkpoint)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        model, difference = switch_and_compare(model, args.form)
        meta = dict(meta, sw_mm=dict(form=args.form, config=args.config.name, checkpoint=Path(args.checkpoint).name))
        save(dict(state_dict=model.state_dict(), meta=meta), args.target, args.force)
    except (OSError, ValueError) as error:
        sys.exit(f'reparameterize: {error}')
    logging.getLogger('sw_mm').info(
        '%s: %s form, %.2f M parameters instead of %.2f M, outputs equal to %.1e',
        args.target,
        args.form,
        sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        parameters / 1e6,
        difference,
    )


if __name__ == '__main__':
    main()
