# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of docs/results into the pages: `python benchmarks/tables.py`.

A page is README.md or a Markdown file of docs/ that has markers, each pair with the name of a
table: `<!-- results: NAME -->` and `<!-- end of results -->`. With `--check`, the program writes
nothing and fails if a page differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import statistics
import sys
from pathlib import Path
from typing import Any
from typing import Callable
from typing import Dict
from typing import List
from typing import Optional
from typing import Sequence

import common
import scale_tables
import speed_tables
from groups import GROUPS
from groups import OBJECTIVES
from groups import TOY_LONG
from groups import TOY_SETS
from groups import TOY_SETTINGS

Rows = Dict[str, Any]  # A file of results
Lines = List[List[str]]  # The cells of a table, with its head first

# Figures of a table, each with its format
TOY_FORMATS = {"modes": ".1f", "high_quality": ".1%", "reverse_kl": ".4f", "wasserstein_2": ".3f"}
MNIST_FORMATS = {"classifier_score": ".2f", "frechet_distance": ".3g", "digit_kl": ".4f"}
DIGIT_FORMATS = {f"digit_{digit}": ".1%" for digit in range(10)}
CLASS_FORMATS = {
    "class_accuracy": ".1%",
    "hue_entropy": ".3f",
    "hue_entropy_min": ".3f",
    "class_frechet_distance": ".3g",
    "classifier_score": ".2f",
    "frechet_distance": ".3g",
}
EMOJI_FORMATS = {
    "test_wasserstein": ".2f",
    "test_accuracy_real": ".1%",
    "test_accuracy_fake": ".1%",
}
# Mean modes, share within 3σ and reverse KL in PacGAN's tables (arXiv 1712.04086), for sets of the
# same shapes. Its standard errors are no deviations, so they are left out.
PUBLISHED_FIGURES = {
    "GAN": {"8gaussians": ["6.3", "98.2%", "0.45"], "25gaussians": ["17.3", "94.8%", "0.70"]},
    "ALI": {"8gaussians": ["6.6", "97.6%", "0.36"], "25gaussians": ["24.1", "95.7%", "0.14"]},
    "VEEGAN": {"8gaussians": ["8", "52.9%", "–"], "25gaussians": ["24.6", "40%", "–"]},
    "PacGAN2": {"8gaussians": ["7.9", "95.6%", "0.07"], "25gaussians": ["23.8", "91.3%", "0.13"]},
    "PacGAN3": {"8gaussians": ["–", "97.7%", "–"]},
    "PacGAN4": {"8gaussians": ["7.8", "95.9%", "0.07"], "25gaussians": ["24.8", "93.6%", "0.04"]},
}
PAPER_SCORES = {"unconditional": 7.86, "conditional": 8.42}  # Table 3 of the paper


@dataclasses.dataclass
class Headline:
    """A row of the table `headline`.

    Args:
        experiment: Text of the first cell.
        group: Name of the file of results.
        rows: Pattern of the names of its rows; the table shows their mean.
        label: Text of the cell that names the figure.
        figure: Key of the figure.
        form: Format of the figure.
    """

    experiment: str
    group: str
    rows: str
    label: str
    figure: str
    form: str


_SHARE = ("within 3σ", "high_quality", ".1%")
_DISTANCE = ("2-Wasserstein", "wasserstein_2", ".3f")
_SCORE = ("classifier score", "classifier_score", ".2f")
_CLASS = ("right digits", "class_accuracy", ".1%")
HEADLINES = (
    Headline("8 Gaussians", "toy", r"8gaussians_\d+", *_SHARE),
    Headline("25 Gaussians", "toy", r"25gaussians_\d+", *_SHARE),
    Headline("25 Gaussians, 14,000 iterations", "toy", r"25gaussians_long_\d+", *_SHARE),
    Headline("the same, `EVAL.truncation=0.03`", "toy", r"25gaussians_truncated_\d+", *_SHARE),
    Headline("25 Gaussians, `preset=authors`", "toy", "25gaussians_paper", *_SHARE),
    Headline("swiss roll, a rate of 1e-3", "toy", r"swissroll_\d+", *_DISTANCE),
    Headline("MNIST, `preset=laptop`", "mnist", "conditional", *_SCORE),
    Headline("coloured digits, `preset=laptop`", "colored_digits", "laptop", *_CLASS),
)


def format_figure(row: Rows, key: str, form: str) -> str:
    """The value of a figure of a run."""
    return format(row["metrics"][key]["value"], form)


def format_mean(values: Sequence[float], form: str) -> str:
    """The mean and, of several values, the sample deviation."""
    text = format(statistics.mean(values), form)
    return f"{text} ± {statistics.stdev(values):{form}}" if len(values) > 1 else text


def format_minutes(rows: Sequence[Rows]) -> str:
    """The mean of the minutes that trainings took."""
    return f"{statistics.mean(row['seconds'] for row in rows) / 60:.0f}"


def headline_table(toy: Rows, mnist: Rows, colored_digits: Rows) -> Lines:
    """The results that a reader wants first.

    The deviation is over the runs; that of a single run is over groups of its samples, where the
    figure has one.
    """
    files = {"toy": toy, "mnist": mnist, "colored_digits": colored_digits}
    columns = ["experiment", "runs", "figure", "generated", "real"]
    lines = [[*columns, "iterations", "minutes", "measured on"]]
    for entry in HEADLINES:
        rows = [r for name, r in files[entry.group].items() if re.fullmatch(entry.rows, name)]
        figures = [row["metrics"][entry.figure] for row in rows]
        values, real = [figure["value"] for figure in figures], [f["real"] for f in figures]
        cells = [format_mean(values, entry.form), format_mean(real, entry.form)]
        if len(rows) == 1:
            deviations = figures[0]["deviation"], figures[0]["real_deviation"]
            cells = [
                cell if deviation is None else f"{cell} ± {deviation:{entry.form}}"
                for cell, deviation in zip(cells, deviations)
            ]
        cores, machine = rows[0]["cores"], rows[0]["machine"]
        place = f"{cores} {'core' if cores == 1 else 'cores'}, {machine}"
        length = [f"{rows[0]['iterations']:,}", format_minutes(rows), place]
        lines.append([entry.experiment, str(len(rows)), entry.label, *cells, *length])
    return lines


def toy_table(rows: Rows) -> Lines:
    """Means and deviations of each set's figures over the seeds, above what others published.

    The cell of high quality also has the least share. The last column is the distance of two draws
    of real points.
    """
    columns = ["set", "method", "runs", "iterations"]
    lines = [[*columns, "modes", "within 3σ", "reverse KL", "2-Wasserstein", "real to real"]]
    for name in TOY_SETS:
        settings = " ".join(TOY_SETTINGS.get(name, []))
        methods = {
            f"WGAN-GP, `{settings}`" if settings else "WGAN-GP, default": r"\d+",
            f"WGAN-GP, `{' '.join(TOY_LONG)}`": r"long_\d+",
            "the same, `EVAL.truncation=0.03`": r"truncated_\d+",
            "WGAN-GP, `preset=authors`": "paper",
        }
        for method, suffix in methods.items():
            runs = [row for key, row in rows.items() if re.fullmatch(f"{name}_{suffix}", key)]
            if not runs:
                continue  # The file is not complete yet.
            cells = [f"`{name}`", method, str(len(runs)), f"{runs[0]['iterations']:,}"]
            for key, form in TOY_FORMATS.items():
                values = [run["metrics"][key]["value"] for run in runs if key in run["metrics"]]
                cells.append(format_mean(values, form) if values else "–")
                if key == "high_quality" and len(values) > 1:
                    cells[-1] += f" (≥ {min(values):.2%})"  # exact, a share of 2,500 samples
            distances = [run["metrics"]["wasserstein_2"]["real"] for run in runs]
            lines.append([*cells, format(statistics.mean(distances), TOY_FORMATS["wasserstein_2"])])
        for method, figures in PUBLISHED_FIGURES.items():
            if name in figures:
                runs = "5" if method == "VEEGAN" else "10"  # VEEGAN's figures are its authors'.
                lines.append([f"`{name}`", method, runs, "–", *figures[name], "–", "–"])
    return lines


def digits_table(rows: Rows, formats: Dict[str, str]) -> Lines:
    """A line for each figure, with a column for each run and one for as many real test digits.

    A figure that no run has is left out.
    """
    runs = list(rows.values())
    lines = [["figure", *(f"`{name}`" for name in rows), "real"]]
    lines.append(["iterations", *(f"{run['iterations']:,}" for run in runs), "–"])
    lines.append(["minutes", *(format_minutes([run]) for run in runs), "–"])
    for key, form in formats.items():
        figures = [run["metrics"].get(key) for run in runs]
        real = next((figure["real"] for figure in figures if figure), None)
        if real is None:
            continue
        cells = ["–" if figure is None else f"{figure['value']:{form}}" for figure in figures]
        deviations = [figure and figure["deviation"] for figure in figures]
        cells = [c if d is None else f"{c} ± {d:{form}}" for c, d in zip(cells, deviations)]
        lines.append([f"`{key}`", *cells, f"{real:{form}}"])
    return lines


def mnist_table(rows: Rows) -> Lines:
    """The figures of MNIST, with the shares of the digits."""
    return digits_table(rows, {**MNIST_FORMATS, "class_accuracy": ".1%", **DIGIT_FORMATS})


def emoji_table(rows: Rows) -> Lines:
    """The critic's figures on test pictures; the critic of an unconditional run has no classes."""
    lines = [["run", "iterations", "minutes", *(f"`{key}`" for key in EMOJI_FORMATS)]]
    for name, row in rows.items():
        cells = [
            format_figure(row, key, form) if key in row["metrics"] else "–"
            for key, form in EMOJI_FORMATS.items()
        ]
        lines.append([name, f"{row['iterations']:,}", format_minutes([row]), *cells])
    return lines


def cifar10_table(rows: Rows) -> Lines:
    """A line for each run, with the paper's score; a score at most 10% below it is accepted."""
    lines = [["run", "iterations", "Inception Score", "the paper's", "FID", "verdict"]]
    for name, row in rows.items():
        paper, fid, verdict, text = PAPER_SCORES[name], "–", "not measured", "–"
        if "inception_score" in row["metrics"]:
            score = row["metrics"]["inception_score"]
            share = score["value"] / paper
            verdict = f"{'within 10%' if share >= 0.9 else 'NOT within 10%'} ({share:.1%})"
            text = f"{score['value']:.2f} ± {score['deviation']:.2f}"
            fid = format_figure(row, "fid", ".2f")
        lines.append([name, f"{row['iterations']:,}", text, f"{paper:.2f}", fid, verdict])
    return lines


def objectives_table(rows: Rows, formats: Dict[str, str]) -> Lines:
    """Means and deviations of each objective over its seeds, above a line of real data."""
    lines = [["objective", "optimizer", "iterations", *(f"`{key}`" for key in formats)]]
    for name, (objective, optimizer, *_) in OBJECTIVES.items():
        runs = [row for key, row in rows.items() if re.fullmatch(rf"{name}_\d+", key)]
        if not runs:
            continue  # The file is not complete yet.
        cells = [
            format_mean([run["metrics"][key]["value"] for run in runs], form)
            for key, form in formats.items()
        ]
        lines.append([f"`{objective}`", optimizer, f"{runs[0]['iterations']:,}", *cells])
    real = next(iter(rows.values()))["metrics"]
    cells = [format(real[key]["real"], form) for key, form in formats.items()]
    return [*lines, ["real", "–", "–", *cells]]


MISTAKES = {
    "right": "none",
    "one_axis": "1. norm over one axis",
    "alpha_per_pixel": "2. an α for each coordinate",
    "batch_norm": "3. batch norm in the critic",
    "alpha_normal": "6. α from N(0, 1)",
}
SCALED = r"($n\,\lVert x - c\rVert$)"


def known_distance_lines(rows: Rows, penalty_weight: float) -> Lines:
    """Lines of critics whose distance is known, below the exact figures (mistakes.py).

    Args:
        rows: The distance, and figures by the keys of MISTAKES.
        penalty_weight: The penalty's weight in these trainings.
    """
    distance = rows["distance"]
    # The multiple of ||x - c|| with the least loss. A critic of another shape may gain a little.
    best = 1 + distance / (2 * penalty_weight)
    lines = [["(truth)", f"{distance:.2f}", "1"]]
    lines.append([SCALED, f"{best * distance:.2f}", f"{best:.2f}"])
    for key, name in MISTAKES.items():
        if key in rows:
            row = rows[key]
            length = f"{row['gradient_norm']:.2f} ± {row['gradient_norm_deviation']:.2f}"
            lines.append([name, f"{row['wasserstein']:.2f}", length])
    return lines


def mistakes_table(rows: Rows) -> Lines:
    """The figures of mistakes.py on digits, and the times of a step."""
    lines = [["mistake", "estimated distance", "gradient norm", "time of a step"]]
    lines += [[*line, "–"] for line in known_distance_lines(rows, 10.0)]
    seconds = rows["graph"]["seconds"]
    ratio = seconds["graph_left"] / seconds["detached"]
    graph = ["4. graph through the generator", "–", "–", f"×{ratio:.2f}"]
    return [*lines[:-1], graph, lines[-1]]


def mistakes_points_table(rows: Rows) -> Lines:
    """The figures of mistakes.py on the eight Gaussians."""
    lines = [["mistake", "estimated distance", "gradient norm"]]
    return lines + known_distance_lines(rows["8gaussians"], 0.1)


def fuzz_table(rows: Rows) -> Lines:
    """Outcomes of damaged and hostile files by reader (tests/unit/fuzz.py), with their sums."""
    passed = ("refused", "equal", "different")
    columns = ["reader", "files", "refused", "read as written", "read with a known change"]
    lines = [[*columns, "failed"]]
    for name, row in {**rows["targets"], "all readers": rows["total"]}.items():
        files = sum(row.values())
        counts = [row[outcome] for outcome in passed]
        lines.append([name, *(f"{count:,}" for count in (files, *counts, files - sum(counts)))])
    return lines


def stress_table(rows: Rows) -> Lines:
    """Outcomes of faults by kind (tests/runs/stress.py), with their sums."""
    lines = [["fault", "cases", "as expected", "not as expected"]]
    classes = rows["classes"]
    total = {key: sum(row[key] for row in classes.values()) for key in ("right", "wrong")}
    for name, row in {**classes, "all faults": total}.items():
        right, wrong = row["right"], row["wrong"]
        lines.append([name, *(f"{count:,}" for count in (right + wrong, right, wrong))])
    return lines


def shipped_weights_table(rows: Rows) -> Lines:
    """A line for each name of weights that ship; figures stand before those of real data."""
    formats = {**TOY_FORMATS, **MNIST_FORMATS, **CLASS_FORMATS}
    lines = [["name", "kB", "iterations", "minutes", "figures (real)", "command"]]
    for name, row in rows.items():
        size = sum(file["bytes"] for file in row["files"].values()) / 1000
        figures = [
            f"`{key}` {row['figures'][key]['value']:{form}} ({row['figures'][key]['real']:{form}})"
            for key, form in formats.items()
            if key in row["figures"]
        ]
        length = [f"{row['iterations']:,}", format_minutes([row])]
        command = f"`{row['command']}`"
        lines.append([f"`{name}`", f"{size:.0f}", *length, "<br>".join(figures), command])
    return lines


def pretrained_table(rows: Rows) -> Lines:
    """A line for each name of weights that ship, with links to its files from the tutorial."""
    lines = [["name", "weights", "size", "figures (real)"]]
    letters = {"generator": "G", "discriminator": "D"}
    for (name, *_, figures, _), row in zip(shipped_weights_table(rows)[1:], rows.values()):
        files = row["files"].items()
        links = [f"[{letters[role]}]({WEIGHTS}/{file['file']})" for role, file in files]
        size = sum(file["bytes"] for _, file in files) / 1000
        lines.append([name, ", ".join(links), f"{size:.0f} kB", figures])
    return lines


TABLES: Dict[str, Callable[..., Lines]] = {
    "headline": headline_table,
    "toy": toy_table,
    "mnist": mnist_table,
    "colored_digits": lambda rows: digits_table(rows, CLASS_FORMATS),
    "emoji": emoji_table,
    "emoji64": emoji_table,
    "lab": mnist_table,
    "cifar10": cifar10_table,
    "mistakes": mistakes_table,
    "mistakes_points": mistakes_points_table,
    "objectives_toy": lambda rows: objectives_table(rows, TOY_FORMATS),
    "objectives_mnist": lambda rows: objectives_table(rows, MNIST_FORMATS),
    "fuzz": fuzz_table,
    "stress": stress_table,
    "speed": speed_tables.speed_table,
    "speed_avx2": speed_tables.speed_table,
    "speed_steps": speed_tables.speed_steps_table,
    "speed_machine": speed_tables.speed_machine_table,
    "processes": speed_tables.processes_table,
    "scale": scale_tables.scale_table,
    "scale_limits": scale_tables.scale_limits_table,
    "agreement": scale_tables.agreement_table,
    "shipped_weights": shipped_weights_table,
    "pretrained": pretrained_table,
}
# Commands that make a file of results which `make results` does not make
MAKERS = {name: f"`make {name}`" for name in ("fuzz", "stress")}
MAKERS.update({name: f"`python benchmarks/{name}.py`" for name in ("scale", "agreement")})
MAKERS["weights"] = "`python benchmarks/ship_weights.py`"
MAKERS.update(dict.fromkeys(("speed", "processes"), "`make bench`"))
MAKERS["speed_avx2"] = "`python benchmarks/speed.py --output docs/results/speed_avx2.json`"
# Files of results that a table is made from, where it is not the one of the same name
SOURCES = {
    "headline": ("toy", "mnist", "colored_digits"),
    "mistakes_points": ("mistakes",),
    "speed_steps": ("speed",),
    "speed_machine": ("speed",),
    "scale": ("scale", "speed"),
    "scale_limits": ("scale",),
    "shipped_weights": ("weights",),
    "pretrained": ("weights",),
}
# Folders of files that are not in docs/results
FOLDERS = {"weights": common.SUITE / "weights"}
WEIGHTS = "../../../examples/wgangp/weights"  # from the tutorial, the page of `pretrained`


CHINESE = {
    "set": "数据集",
    "name": "名称",
    "weights": "权重",
    "size": "大小",
    "figures (real)": "指标（真实数据）",
    "command": "命令",
    "kB": "kB",
    "method": "方法",
    "runs": "训练次数",
    "minutes": "分钟",
    "WGAN-GP, default": "WGAN-GP，默认设置",
    "the same, `EVAL.truncation=0.03`": "同上，`EVAL.truncation=0.03`",
    "WGAN-GP, `TRAIN.learning_rate=1e-3`": "WGAN-GP，`TRAIN.learning_rate=1e-3`",
    f"WGAN-GP, `{' '.join(TOY_LONG)}`": f"WGAN-GP，`{' '.join(TOY_LONG)}`",
    "WGAN-GP, `preset=authors`": "WGAN-GP，`preset=authors`",
    "modes": "捕获的模式",
    "within 3σ": "高质量样本比例",
    "reverse KL": "反向 KL",
    "2-Wasserstein": "2-Wasserstein 距离",
    "real to real": "真实样本间距离",
    "figure": "指标",
    "generated": "生成",
    "real": "真实",
    "objective": "目标函数",
    "optimizer": "优化器",
    "iterations": "迭代次数",
    "mistake": "错误",
    "estimated distance": "估计的距离",
    "gradient norm": "梯度范数",
    "time of a step": "每步用时",
    "(truth)": "（真值）",
    "none": "无",
    "1. norm over one axis": "1. 只沿一个轴求范数",
    "2. an α for each coordinate": "2. 每个坐标一个 α",
    "3. batch norm in the critic": "3. 评判器使用批归一化",
    "4. graph through the generator": "4. 保留生成器的计算图",
    "6. α from N(0, 1)": "6. α 取自 N(0, 1)",
    "run": "训练",
    "the paper's": "论文",
    "verdict": "结论",
    "experiment": "实验",
    "measured on": "测量环境",
    "reader": "读取程序",
    "files": "文件数",
    "refused": "拒绝",
    "read as written": "与写入时一致",
    "read with a known change": "不一致，原因已知",
    "failed": "失败",
    "all readers": "合计",
    "fault": "故障",
    "cases": "次数",
    "as expected": "符合预期",
    "not as expected": "不符合预期",
    "all faults": "合计",
    "SIGKILL at a random moment": "随机时刻 SIGKILL",
    "SIGKILL while a checkpoint is written": "写检查点时 SIGKILL",
    "SIGKILL, then checkpoints/ removed": "SIGKILL 后删除 checkpoints/",
    "SIGTERM within the first seconds": "启动后数秒内 SIGTERM",
    "two SIGTERMs at a random moment": "随机时刻连发两次 SIGTERM",
    "cifar-10 archive": "CIFAR-10 压缩包",
    "weights of ours": "本项目的权重",
    "weights of others": "他人的权重",
    "weights of PyTorch": "PyTorch 的权重",
    "checkpoint": "检查点",
    "exported weights": "导出的权重",
    "pictures in a zip": "zip 中的图片",
    "idx files in a zip": "zip 中的 idx 文件",
    "npz of digits": "手写数字的 npz",
    "binary cifar-10": "CIFAR-10 二进制版",
    "pictures in a packed zip": "压缩 zip 中的图片",
    "pictures in a tar.gz": "tar.gz 中的图片",
    "toy": "玩具数据",
    "64x64, DCGAN": "64x64，DCGAN",
    "64x64, residual": "64x64，残差网络",
    "Inception features, a picture": "Inception 特征，每张图片",
    "width": "宽度",
    "batch": "批大小",
    "step": "更新",
    "critic": "评判器",
    "generator": "生成器",
    "the suite, s": "本项目（秒）",
    "without oneDNN, s": "不用 oneDNN（秒）",
    "PyTorch, s": "PyTorch（秒）",
    "PyTorch / the suite": "PyTorch / 本项目",
    "the suite, GiB": "本项目（GiB）",
    "PyTorch, GiB": "PyTorch（GiB）",
    "GFLOP/s": "GFLOP/s",
    SCALED: r"（$n\,\lVert x - c\rVert$）",
    "relative to a product": "与矩阵乘法速度之比",
    "property": "项目",
    "value": "值",
    "processor": "处理器",
    "cores": "核数",
    "threads": "线程数",
    "versions": "版本",
    "date": "日期",
    "load average before": "测量前的平均负载",
    "cores that others used": "其他程序占用的核数",
    "GFLOP/s of NumPy's product": "NumPy 矩阵乘法的 GFLOP/s",
    "GFLOP/s of oneDNN's product": "oneDNN 矩阵乘法的 GFLOP/s",
    "one process, s": "一个进程（秒）",
    "two processes, s": "两个进程（秒）",
    "one / two": "一个 / 两个",
    "GFLOP of an iteration": "每次迭代 GFLOP",
    "weights of the critic": "评判器参数",
    "weights of the generator": "生成器参数",
    "gradients, MB": "梯度（MB）",
    "N*": "N*",
    "R, TFLOP/s": "R（TFLOP/s）",
    "L, GB/s": "L（GB/s）",
    **{f"{count} GPUs": f"{count} 个 GPU" for count in scale_tables.GPU_COUNTS},
    "processes N": "进程数 N",
    "one process": "一个进程",
    "whole batch": "整批",
    "whole batch, N groups": "整批，分 N 组归一化",
    "N accumulated batches": "累积 N 批",
    "critic's loss": "评判器损失",
    "generator's loss": "生成器损失",
}


def list_sources(name: str, results: Path) -> List[Path]:
    """Lists the files that a table is made from.

    Args:
        name: A key of TABLES.
        results: The folder of the files of results.
    """
    sources = SOURCES.get(name, (name,))
    return [FOLDERS.get(source, results) / f"{source}.json" for source in sources]


def make_table(name: str, results: Path, chinese: bool = False) -> str:
    """A table in Markdown; exits with a message if its results are missing or damaged.

    Args:
        name: A key of TABLES.
        results: The folder of the files of results.
        chinese: Whether to translate the cells that CHINESE has.
    """
    if name not in TABLES:
        sys.exit(f"There is no table {name!r}; there are {', '.join(TABLES)}.")
    paths = list_sources(name, results)
    for path in paths:
        if not path.exists():
            group = path.stem
            maker = MAKERS.get(group, f"benchmarks/{group}.py")
            maker = f"`make results GROUP={group}`" if group in GROUPS else maker
            sys.exit(f"{path} is missing: {maker} makes it.")
    try:
        head, *lines = TABLES[name](*(common.read_results(path) for path in paths))
    except (LookupError, AttributeError, TypeError, ValueError, StopIteration) as error:
        files = ", ".join(map(str, paths))
        sys.exit(f"{files} can't be tabled ({error!r}): restore it, or make it again.")
    lines = [head, ["---"] * len(head), *lines]
    if chinese:
        lines = [[CHINESE.get(cell, cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill_markers(text: str, results: Path, chinese: bool = False) -> str:
    """The text of a page with the current tables between its markers."""

    def fill(match) -> str:
        body = make_table(match[1], results, chinese)
        return f"<!-- results: {match[1]} -->\n\n{body}\n\n<!-- end of results -->"

    markers = r"<!-- results: (\S+) -->(?:(?!<!-- results:).)*?<!-- end of results -->"
    text, count = re.subn(markers, fill, text, flags=re.S)
    if not count == text.count("<!-- results:") == text.count("<!-- end of results"):
        sys.exit("A table needs two markers: <!-- results: NAME --> and <!-- end of results -->.")
    return text


def find_pages(root: Path) -> List[Path]:
    """README.md and the Markdown files of docs/ that have a marker, below a folder."""
    pages = [*root.glob("README.md"), *sorted(root.glob("docs/**/*.md"))]
    markers = re.compile("<!-- (results:|end of results)")
    return [page for page in pages if markers.search(page.read_text(encoding="utf-8"))]


def update_pages(root: Path, results: Path, check: bool = False) -> None:
    """Writes the current tables into the pages, or exits with a message if one differs.

    Args:
        root: The folder of README.md and docs/; the pages below a folder `zh` are Chinese.
        results: The folder of the files of results.
        check: Whether to write nothing and to fail if a page differs.
    """
    for page in find_pages(root):
        old = page.read_text(encoding="utf-8")
        try:
            new = fill_markers(old, results, "zh" in page.relative_to(root).parts)
        except SystemExit as error:
            sys.exit(f"{page}: {error}")
        if new == old:
            continue
        if check:
            sys.exit(f"{page}: its tables differ from docs/results; `make tables` writes them.")
        page.write_text(new, encoding="utf-8")
        print(f"Wrote {page}")


def main(words: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, fail if a page differs"
    )
    parser.add_argument("--root", type=Path, default=common.ROOT, help="has README.md and docs/")
    options = parser.parse_args(words)
    update_pages(options.root, common.RESULTS, options.check)


if __name__ == "__main__":
    main()
