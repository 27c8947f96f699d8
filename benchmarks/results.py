# SPDX-License-Identifier: Apache-2.0
"""Makes the results that README and tutorial show: `python benchmarks/results.py run GROUP`.

`run GROUP` trains and evaluates each row of a group, and writes docs/results/GROUP.json; given
again after an interruption, it goes on. `tables` writes the tables of those files into the pages,
between marks that name them; `tables --check` only tells whether they are there.
"""

import argparse
import dataclasses
import json
import os
import platform
import re
import shlex
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Callable
from typing import Dict
from typing import List
from typing import Sequence

from hydra import compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "examples" / "wgangp"
sys.path.insert(0, str(SCRIPTS))

from support.settings import flatten

RESULTS = ROOT / "docs" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "zh" / "examples" / "wgangp.md",
    ROOT / "docs" / "en" / "examples" / "wgangp.md",
)


@dataclasses.dataclass
class Row:
    """A training and the evaluation of its final weights, or of their moving average.

    Args:
        script: Its experiment's script, without `wgangp_` and `.py`.
        model: Settings that the evaluation needs, too.
        training: Settings of the training alone.
    """

    script: str
    model: List[str]
    training: List[str] = dataclasses.field(default_factory=list)


# The optimiser and rate that each objective brings (conf/LOSS; of wgan_gp, the authors' own); GAN
# also by the Adam of later practice. Each rate is multiplied for runs as short as these, by the
# same factor for all.
OBJECTIVES = {
    "wgan_gp": ("wgan_gp", "Adam", 1e-4, []),
    "wgan": ("wgan", "RMSProp", 5e-5, []),
    "wgan_div": ("wgan_div", "Adam", 2e-4, []),
    "gan": ("gan", "SGD", 2e-4, []),
    "gan_adam": ("gan", "Adam", 2e-4, ["TRAIN.beta1=0.5", "TRAIN.beta2=0.999"]),
}


def objectives(script: str, model: List[str], factor: float, iterations: int) -> Dict[str, Row]:
    """Rows with as many optimiser steps each, of critic and generator together."""
    rows = {}
    for name, (objective, optimizer, rate, more) in OBJECTIVES.items():
        # five critic steps and one of the generator, or one of each
        length = 3 * iterations if objective == "gan" else iterations
        rows[name] = Row(
            script,
            model,
            [
                *(f"LOSS={objective}", f"TRAIN.optimizer={optimizer}"),
                *(f"TRAIN.learning_rate={factor * rate:g}", "TRAIN.lr_schedule=linear"),
                *("TRAIN.epochs=4", f"TRAIN.iters_per_epoch={length // 4}"),
                *("TRAIN.eval_freq=1", *more),
            ],
        )
    return rows


def width(channels: int) -> List[str]:
    return [f"MODEL.gen_net.dim={channels}", f"MODEL.dis_net.dim={channels}"]


def mnist(model: List[str], iterations: int, *settings: str) -> Row:
    """A row of about half an hour on one core."""
    length = ["TRAIN.epochs=16", f"TRAIN.iters_per_epoch={iterations // 16}"]
    return Row("mnist", model, [*settings, *length, "TRAIN.lr_schedule=linear"])


def emoji(use_label: str, *settings: str) -> Row:
    """CIFAR-10's networks on a small archive of other pictures."""
    return Row(
        "cifar10",
        [f"MODEL.use_label={use_label}", *width(16), "EVAL.inception=false"],
        [
            *("TRAIN.batch_size=32", "TRAIN.generator_batch_factor=1", "TRAIN.n_critic=2"),
            *("TRAIN.learning_rate=1e-3", "TRAIN.epochs=10", "TRAIN.iters_per_epoch=400"),
            *settings,
        ],
    )


# Batch normalisation in MNIST's generator: practice has it, the authors' has none.
BATCH_NORM = ["MODEL.arch=wgan_lab", "MODEL.gen_net.dim=32", "MODEL.dis_net.dim=16"]
TOY_SETS = ("8gaussians", "25gaussians", "swissroll")
GROUPS = {
    "toy": {
        **{
            f"{name}_{seed}": Row("toy", [f"DATA.mode={name}", f"seed={seed}"])
            for name in TOY_SETS
            for seed in range(10)
        },
        # about half of it: the rate is constant, so that the whole training passes here
        "25gaussians_paper": Row(
            "toy", ["DATA.mode=25gaussians", "preset=paper", "seed=0"], ["TRAIN.epochs=102"]
        ),
    },
    "mnist": {
        "wgan_gp": mnist(width(16), 12_000, "TRAIN.learning_rate=3e-3", "TRAIN.n_critic=2"),
        "wgan_gp_bn": mnist(BATCH_NORM, 12_000, "TRAIN.learning_rate=2e-3", "TRAIN.n_critic=2"),
        "wgan_bn": mnist(
            [*BATCH_NORM, "MODEL.dis_net.norm=batch"],
            7_200,
            *("LOSS=wgan", "TRAIN.learning_rate=5e-4"),
        ),
        "gan_bn": mnist(
            [*BATCH_NORM, "MODEL.dis_net.norm=batch"],
            23_200,
            *("LOSS=gan", "TRAIN.optimizer=Adam", "TRAIN.beta2=0.999"),
        ),
        # longer, where two critic steps at 2e-3 fail (5.7 of the tutorial)
        "wgan_gp_bn_long": Row(
            "mnist",
            BATCH_NORM,
            [
                *("TRAIN.learning_rate=1e-3", "TRAIN.n_critic=5", "TRAIN.epochs=20"),
                *("TRAIN.iters_per_epoch=1000", "TRAIN.lr_schedule=linear"),
                "TRAIN.ema.use_ema=true",
            ],
        ),
    },
    "emoji": {
        "conditional": emoji("true"),
        "conditional_weight_1": emoji("true", "TRAIN.generator_class_weight=1"),
        "unconditional": emoji("false"),
    },
    "lab": {"wgan_lab": Row("mnist", ["preset=wgan_lab"])},
    # the paper's own, as the defaults are
    "cifar10": {
        "unconditional": Row("cifar10", ["MODEL.use_label=false"]),
        "conditional": Row("cifar10", ["MODEL.use_label=true"]),
    },
    "objectives_toy": objectives(
        "toy", ["DATA.mode=8gaussians", "preset=paper", *width(256)], 10, 4000
    ),
    "objectives_mnist": objectives("mnist", width(16), 3, 3000),
}


def run(group: str, output: Path, results: Path, more: Sequence[str] = ()) -> None:
    """Trains and evaluates what of a group is not yet in its file.

    Args:
        group: A key of GROUPS.
        output: Where the runs' folders are.
        results: Where GROUP.json is.
        more: Settings for all runs and evaluations, such as where the data are.
    """
    path = results / f"{group}.json"
    done = read(path) if path.exists() else {}
    # paths are the user's own
    settings = [word for word in more if not re.match(r"[\w.]*(path|weights)=", word)]
    for name, row in GROUPS[group].items():
        script = f"wgangp_{row.script}.py"
        train, evaluate = [script, *row.model, *row.training], [script, "mode=eval", *row.model]
        command = shlex.join(["python", *train, *settings])
        folder = output / group / name
        if name in done:
            if done[name]["train"] != command:
                sys.exit(
                    f"{path}: {name} was made by another command, {done[name]['train']}: "
                    "--results=FOLDER --output=FOLDER keep these apart."
                )
            print(f"{name} is there already: remove {path} and {folder} to make it anew.")
            continue
        require_same_settings(folder, f"wgangp_{row.script}", [*train[1:], *more])
        start(*train, *more, "TRAIN.resume=auto", f"hydra.run.dir={folder}")
        average = folder / "model_average_generator.pdparams"  # with TRAIN.ema.use_ema
        generator = average if average.exists() else folder / "model_generator.pdparams"
        start(
            *(*evaluate, *more, f"hydra.run.dir={folder}/evaluation"),
            f"EVAL.pretrained_gen_model_path={generator}",
            f"EVAL.pretrained_dis_model_path={folder}/model_discriminator.pdparams",
        )
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        written = json.loads((folder / "evaluation" / "metrics.json").read_text())
        done[name] = {
            "train": command,
            "evaluate": shlex.join(["python", *evaluate, *settings]),
            "evaluated": generator.stem,
            "seed": written["seed"],
            "iterations": last["step"],
            "seconds": round(last["seconds"]),
            "cores": cores(),
            "machine": machine(),
            "metrics": written["metrics"],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        ordered = {name: done[name] for name in GROUPS[group] if name in done}
        new.write_text(json.dumps(ordered, indent=1) + "\n")
        new.replace(path)  # all of it or nothing


def require_same_settings(folder: Path, script: str, words: Sequence[str]) -> None:
    """Ends where a folder holds a training that other settings began.

    Its command may be the same: it is the defaults that have changed since.
    """
    if not (folder / "config.yaml").exists():
        return
    try:
        with initialize_config_dir(str(SCRIPTS / "conf"), version_base=None):
            composed = compose(script, list(words))
    except HydraException:
        return  # a slip, which the script itself tells better
    kept, now = (
        flatten(
            {
                "seed": settings.seed,
                **{
                    part: OmegaConf.to_container(settings[part], resolve=True)
                    for part in ("DATA", "MODEL", "LOSS", "TRAIN")  # of which a training is made
                },
            }
        )
        for settings in (OmegaConf.load(folder / "config.yaml"), composed)
    )
    changes = [
        f"{key} was {kept[key]} and is {value}"
        for key, value in now.items()
        if key in kept and kept[key] != value and key not in ("DATA.data_path", "TRAIN.resume")
    ]
    if changes:
        sys.exit(
            f"{folder} holds a training that was begun by other settings: {', '.join(changes)}. "
            "Remove it, or name another by --output=FOLDER."
        )


def start(*command: str) -> None:
    """Runs a script as a user does, and lets it save what it has when a signal comes."""
    process = subprocess.Popen([sys.executable, *command], cwd=SCRIPTS)
    told = []

    def pass_on(number, frame):
        told.append(number)
        if number == signal.SIGTERM:  # a terminal sends SIGINT to both
            process.send_signal(number)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, pass_on) for number in signals}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if told:
        sys.exit("Interrupted: the same command goes on from here.")
    if status:
        sys.exit(f"{shlex.join(command)} failed, as it says above. What was finished is kept.")


def read(path: Path) -> Dict[str, dict]:
    """A file of results."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"{path} can't be read ({error}): restore it, or remove it to make it anew.")


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> str:
    """The processor's name, as Linux tells it."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def value(row: dict, key: str, form: str) -> str:
    return format(row["metrics"][key]["value"], form)


# how each figure is written
TOY = {"modes": ".1f", "high_quality": ".1%", "reverse_kl": ".4f", "wasserstein_2": ".3f"}
# modes, share within 3σ and reverse KL, tabled by PacGAN (arXiv 1712.04086), on sets of this shape
PUBLISHED = {
    "GAN": {"8gaussians": ["6.3", "98.2%", "0.45"], "25gaussians": ["17.3", "94.8%", "0.70"]},
    "ALI": {"8gaussians": ["6.6", "97.6%", "0.36"], "25gaussians": ["24.1", "95.7%", "0.14"]},
    "VEEGAN": {"8gaussians": ["8", "52.9%", "–"], "25gaussians": ["24.6", "40%", "–"]},
    "PacGAN2": {"8gaussians": ["7.9", "95.6%", "0.07"], "25gaussians": ["23.8", "91.3%", "0.13"]},
    "PacGAN4": {"8gaussians": ["7.8", "95.9%", "0.07"], "25gaussians": ["24.8", "93.6%", "0.04"]},
}
MNIST = {"classifier_score": ".2f", "frechet_distance": ".3g", "digit_kl": ".4f"}
DIGITS = {f"digit_{digit}": ".1%" for digit in range(10)}


def objectives_table(rows: Dict[str, dict], figures: Dict[str, str]) -> List[List[str]]:
    """A row each, and one of real data below."""
    lines = [["objective", "optimizer", "iterations", *(f"`{key}`" for key in figures)]]
    for name, row in rows.items():
        objective, optimizer, *_ = OBJECTIVES[name]
        settings = [f"`{objective}`", optimizer, f"{row['iterations']:,}"]
        lines.append(settings + [value(row, key, form) for key, form in figures.items()])
    real = next(iter(rows.values()))["metrics"]
    best = [format(real[key]["real"], form) for key, form in figures.items()]
    return [*lines, ["real", "–", "–", *best]]


def toy_table(rows: Dict[str, dict]) -> List[List[str]]:
    """Mean and deviation of a set's figures over its seeds; what is published is below.

    The least share of high quality is beside the mean. The floor is the distance of two real draws.
    """
    columns = ["set", "method", "runs", "iterations"]
    lines = [[*columns, "modes", "within 3σ", "reverse KL", "2-Wasserstein", "its floor"]]
    methods = {"WGAN-GP, default": r"\d+", "WGAN-GP, `preset=paper`": "paper"}
    for name in TOY_SETS:
        for method, suffix in methods.items():
            runs = [row for key, row in rows.items() if re.fullmatch(f"{name}_{suffix}", key)]
            if not runs:
                continue  # of a file that is not complete yet
            cells = [f"`{name}`", method, str(len(runs)), f"{runs[0]['iterations']:,}"]
            for key, form in TOY.items():
                values = [run["metrics"][key]["value"] for run in runs if key in run["metrics"]]
                cells.append(spread(values, form) if values else "–")
                if key == "high_quality" and len(values) > 1:
                    cells[-1] += f" (≥ {min(values):.2%})"  # exact: of 2,500 samples
            floors = [run["metrics"]["wasserstein_2"]["real"] for run in runs]
            lines.append([*cells, format(statistics.mean(floors), TOY["wasserstein_2"])])
        for method, figures in PUBLISHED.items():
            if name in figures:
                lines.append([f"`{name}`", method, "10", "–", *figures[name], "–", "–"])
    return lines


def spread(values: Sequence[float], form: str) -> str:
    """Mean and, of several, the deviation."""
    text = format(statistics.mean(values), form)
    return f"{text} ± {statistics.stdev(values):{form}}" if len(values) > 1 else text


def mnist_table(rows: Dict[str, dict]) -> List[List[str]]:
    """A figure a row, of each run and of as many real test digits."""
    runs = list(rows.values())
    real = runs[0]["metrics"]
    lines = [["figure", *(f"`{name}`" for name in rows), "real"]]
    lines.append(["iterations", *(f"{run['iterations']:,}" for run in runs), "–"])
    lines.append(["minutes", *(f"{run['seconds'] / 60:.0f}" for run in runs), "–"])
    for key, form in {**MNIST, **DIGITS}.items():
        cells = [value(run, key, form) for run in runs]
        deviations = [run["metrics"][key]["deviation"] for run in runs]
        cells = [c if d is None else f"{c} ± {d:{form}}" for c, d in zip(cells, deviations)]
        lines.append([f"`{key}`", *cells, f"{real[key]['real']:{form}}"])
    return lines


def emoji_table(rows: Dict[str, dict]) -> List[List[str]]:
    """The critic's figures on test pictures; an unconditional one does not classify."""
    forms = {"test_wasserstein": ".2f", "test_accuracy_real": ".1%", "test_accuracy_fake": ".1%"}
    lines = [["run", "iterations", "minutes", *(f"`{key}`" for key in forms)]]
    for name, row in rows.items():
        cells = [value(row, k, form) if k in row["metrics"] else "–" for k, form in forms.items()]
        lines.append([name, f"{row['iterations']:,}", f"{row['seconds'] / 60:.0f}", *cells])
    return lines


PAPER = {"unconditional": 7.86, "conditional": 8.42}  # table 3


def cifar10_table(rows: Dict[str, dict]) -> List[List[str]]:
    """A run a row, beside the paper's score; accepted is what is at most 10% below it."""
    lines = [["run", "iterations", "Inception Score", "the paper's", "FID", "verdict"]]
    for name, row in rows.items():
        paper, fid, verdict, text = PAPER[name], "–", "not measured", "–"
        if "inception_score" in row["metrics"]:
            score = row["metrics"]["inception_score"]
            share = score["value"] / paper
            verdict = f"{'within 10%' if share >= 0.9 else 'NOT within 10%'} ({share:.1%})"
            text = f"{score['value']:.2f} ± {score['deviation']:.2f}"
            fid = value(row, "fid", ".2f")
        lines.append([name, f"{row['iterations']:,}", text, f"{paper:.2f}", fid, verdict])
    return lines


def mistakes_table(rows: Dict[str, dict]) -> List[List[str]]:
    """What benchmarks/mistakes.py measured; the first row is the truth."""
    names = {
        "right": "none",
        "one_axis": "1. norm over one axis",
        "alpha_per_pixel": "2. α per pixel",
        "batch_norm": "3. batch norm in the critic",
    }
    lines = [["mistake", "estimated distance", "length of the gradient", "time of a step"]]
    distance = rows["distance"]
    # the factor that suits lambda 10 best; a critic of another shape may gain a little more
    best = 1 + distance / (2 * 10)
    lines.append(["(truth)", f"{distance:.2f}", "1", "–"])
    lines.append(["(‖x − c‖ scaled as in 2.2)", f"{best * distance:.2f}", f"{best:.2f}", "–"])
    for key, name in names.items():
        row = rows[key]
        length = f"{row['gradient_norm']:.2f} ± {row['gradient_norm_deviation']:.2f}"
        lines.append([name, f"{row['wasserstein']:.2f}", length, "–"])
    seconds = rows["graph"]["seconds"]
    ratio = seconds["graph_left"] / seconds["detached"]
    return [*lines, ["4. graph through the generator", "–", "–", f"x {ratio:.2f}"]]


TABLES: Dict[str, Callable[[dict], List[List[str]]]] = {
    "toy": toy_table,
    "mnist": mnist_table,
    "emoji": emoji_table,
    "lab": mnist_table,
    "cifar10": cifar10_table,
    "mistakes": mistakes_table,
    "objectives_toy": lambda rows: objectives_table(rows, TOY),
    "objectives_mnist": lambda rows: objectives_table(rows, MNIST),
}


CHINESE = {
    "set": "数据集",
    "method": "方法",
    "runs": "训练次数",
    "minutes": "分钟",
    "WGAN-GP, default": "WGAN-GP，默认设置",
    "WGAN-GP, `preset=paper`": "WGAN-GP，`preset=paper`",
    "modes": "捕获的模式",
    "within 3σ": "3σ 以内",
    "reverse KL": "反向 KL",
    "2-Wasserstein": "2-Wasserstein 距离",
    "its floor": "下限",
    "figure": "指标",
    "generated": "生成",
    "real": "真实",
    "objective": "目标函数",
    "optimizer": "优化器",
    "iterations": "迭代次数",
    "mistake": "错误",
    "estimated distance": "估计的距离",
    "length of the gradient": "梯度长度",
    "time of a step": "一步的时间",
    "(truth)": "（真值）",
    "(‖x − c‖ scaled as in 2.2)": "（‖x − c‖ 按 2.2 放大）",
    "none": "无",
    "1. norm over one axis": "1. 只沿一个轴求范数",
    "2. α per pixel": "2. 每个像素一个 α",
    "3. batch norm in the critic": "3. 评论家用批归一化",
    "4. graph through the generator": "4. 保留生成器的计算图",
    "run": "训练",
    "the paper's": "论文",
    "verdict": "结论",
}


def table(name: str, results: Path, chinese: bool = False) -> str:
    """The table of a file of results, in Markdown."""
    path = results / f"{name}.json"
    if name not in TABLES:
        sys.exit(f"There is no table {name!r}; there are {', '.join(TABLES)}.")
    if not path.exists():
        way = f"`make results GROUP={name}`" if name in GROUPS else f"benchmarks/{name}.py"
        sys.exit(f"{path} is missing: {way} makes it.")
    try:
        head, *lines = TABLES[name](read(path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"{path} is not what `run` writes ({error!r}): restore it, or make it anew.")
    lines = [head, ["---"] * len(head), *lines]
    if chinese:
        lines = [[CHINESE.get(cell, cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render(text: str, results: Path = RESULTS, chinese: bool = False) -> str:
    """The text of a page with the tables of its results between their marks."""

    def marked(match) -> str:
        body = table(match[1], results, chinese)
        return f"<!-- results: {match[1]} -->\n\n{body}\n\n<!-- end of results -->"

    marks = r"<!-- results: (\S+) -->(?:(?!<!-- results:).)*?<!-- end of results -->"
    text, count = re.subn(marks, marked, text, flags=re.S)
    if not count == text.count("<!-- results:") == text.count("<!-- end of results"):
        sys.exit("A mark of a table lacks its other end: <!-- results: NAME -->, end of results.")
    return text


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    running = actions.add_parser("run", help="train and evaluate")
    running.add_argument("group", choices=GROUPS)
    running.add_argument("--data", type=Path, help="DATA.data_path of all runs")
    running.add_argument("--output", type=Path, default=SCRIPTS / "outputs_wgangp_results")
    running.add_argument("--results", type=Path, default=RESULTS, help="where GROUP.json goes")
    running.add_argument(
        "--set",
        nargs="*",
        default=[],
        help="more settings for all, KEY=VALUE; paths in them must be absolute",
    )
    tables = actions.add_parser("tables", help="write the tables into the pages")
    tables.add_argument("--check", action="store_true", help="write nothing, fail if they differ")
    options = parser.parse_args()
    if options.action == "run":
        more = list(options.set)
        if options.data:
            more.append(f"DATA.data_path='{options.data.expanduser().absolute()}'")
        if options.group == "emoji" and not any("DATA.data_path=" in word for word in more):
            parser.error("emoji wants --data=ARCHIVE: without, it would train on CIFAR-10.")
        run(options.group, options.output.absolute(), options.results.absolute(), more)
        print(table(options.group, options.results))
        return
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        try:
            new = render(old, chinese="zh" in page.parts)
        except SystemExit as error:
            sys.exit(f"{page}: {error}")
        if new == old:
            continue
        if options.check:
            sys.exit(f"{page}: its tables differ from docs/results; `make tables` writes them.")
        page.write_text(new, encoding="utf-8")
        print(f"Wrote {page}")


if __name__ == "__main__":
    main()
