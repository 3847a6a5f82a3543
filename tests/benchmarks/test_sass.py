"""Reading machine code: a kernel that adds up products of bf16 and fp32 columns, as compiled for sm_80."""

from pathlib import Path

import pytest

from benchmarks import sass


@pytest.fixture(scope='module')
def text():
    return (Path(__file__).parent / 'columns.sass').read_text()


@pytest.fixture(scope='module')
def code(text):
    return sass.instructions(text)


def test_resources(text):
    assert sass.resources(text) == sass.Resources(registers=33, stack=0, shared=0, local=0)
    with pytest.raises(ValueError, match='REG'):
        sass.resources('nothing')


def test_every_instruction_is_read(code):
    assert [i.address for i in code] == list(range(0, 0x800, 16))
    assert code[0x250 // 16] == sass.Instruction(0x250, 'FFMA', 'R9, R14, R15, R9 ')  # predicated in the text


def test_loops_are_found_by_their_branches(code):
    """The loop itself, unrolled four times, and the one for what is left; neither forward jumps nor the last one."""
    spans = [(loop[0].address, loop[-1].address) for loop in sass.innermost_loops(code)]
    assert spans == [(0x2A0, 0x510), (0x6E0, 0x7A0)]


def test_the_busiest_loop_is_hot(code):
    # Counted by hand: 40 lines; 4 FFMA; 4 loads of 2 bytes and 4 of 4. The loop for what is left has 1 FFMA.
    (hot,) = sass.hot_loops(code)
    assert hot == sass.Mix(instructions=40, fma=4, mma=0, load_bytes=24)
    assert hot.fma_share == 0.1


def assemble(*lines):
    return sass.instructions('\n'.join(f'/*{16 * i:04x}*/  {line} ;' for i, line in enumerate(lines)))


def test_outer_loops_are_not_innermost():
    code = assemble('FFMA R0, R1, R2, R3', 'FADD R0, R1, R2', '@P0 BRA 0x10', 'MOV R1, R2', '@!UP0 BRA 0x0')
    assert [[i.opcode for i in loop] for loop in sass.innermost_loops(code)] == [['FADD', 'BRA']]
    # Without a multiply-add in any loop, all of the code counts.
    assert sass.hot_loops(code) == [sass.Mix(instructions=5, fma=1, mma=0, load_bytes=0)]


def test_all_loops_with_much_arithmetic_are_hot():
    fma = 'FFMA R0, R1, R2, R3'
    code = assemble(fma, fma, fma, 'BRA 0x0', fma, fma, '@P0 BRA 0x40', fma, 'BRA 0x70')
    assert [(mix.fma, mix.instructions) for mix in sass.hot_loops(code)] == [(3, 4), (2, 3)]


@pytest.mark.parametrize(
    ('opcode', 'fma', 'mma', 'load_bytes'),
    [
        ('FFMA.FTZ', 1, 0, 0),
        ('FFMA2', 1, 0, 0),
        ('HFMA2.MMA', 0, 0, 0),  # writes constants
        ('IMAD', 0, 0, 0),
        ('HMMA.16816.F32.BF16', 0, 1, 0),
        ('HGMMA.64x64x16.F32', 0, 1, 0),
        ('LDG.E', 0, 0, 4),
        ('LDG.E.U16.CONSTANT', 0, 0, 2),
        ('LDG.E.S8', 0, 0, 1),
        ('LDG.E.128', 0, 0, 16),
        ('LDS.64', 0, 0, 0),
    ],
)
def test_kinds_of_instructions(opcode, fma, mma, load_bytes):
    assert sass.mix([sass.Instruction(0, opcode, '')]) == sass.Mix(1, fma, mma, load_bytes)
