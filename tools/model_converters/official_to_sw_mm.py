"""Convert official checkpoints to OpenMMLab's names, and back.

Family, form and container of the file are recognised; nothing in it is executed. The result loads strictly into a
classifier, segmentor or detector with the backbone that the summary names.

    python tools/model_converters/official_to_sw_mm.py RepLKNet-31B_ImageNet-1K_224.pth replknet-31b.pth
    python tools/model_converters/official_to_sw_mm.py --to official work_dirs/run/epoch_300.pth replknet-31b.pth
"""

import argparse
import logging
import sys
from pathlib import Path

from sw_mm.checkpoint import save, to_official, to_openmmlab


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0], epilog=__doc__.partition('\n\n')[2].partition('\n\n')[0]
    )
    parser.add_argument('source', metavar='SRC', help='checkpoint: a path or an https URL')
    parser.add_argument('target', metavar='DST', type=Path, help='file to write')
    parser.add_argument('--to', choices=['sw_mm', 'official'], default='sw_mm', help='names to give (%(default)s)')
    parser.add_argument('--ema', action='store_true', help='take the averaged weights (model_ema) of SRC')
    parser.add_argument('--sha256', help='SHA-256 of SRC, or at least its first 8 digits')
    parser.add_argument('--force', action='store_true', help='replace DST if it is there')
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        if args.target.exists() and not args.force:
            raise FileExistsError(f'{args.target} exists; choose another name, or pass --force')
        convert = to_official if args.to == 'official' else to_openmmlab
        content, description = convert(args.source, args.sha256, args.ema)
        save(content, args.target, args.force)
    except (OSError, ValueError) as error:
        sys.exit(f'official_to_sw_mm: {error}')
    entries = len(content.get('state_dict', content))
    logging.getLogger('sw_mm').info('%s: %s, %d entries', args.target, description, entries)


if __name__ == '__main__':
    main()
