import json
from pathlib import Path

import pytest
import torch
import yaml

from bilevel.bin.svm import main
from bilevel.optim import vector
from bilevel.optim.lagrangian import Solver
from bilevel.problems import svm_methods
from bilevel.problems.qp import Infeasible
from bilevel.problems.svm import DATASETS, Svm, expand, load, read_libsvm
from bilevel.problems.svm_optimum import Optimum

CONF = Path(__file__).resolve().parents[2] / "egs/svm/bilevel1/conf"
ACCURATE = {"n_iter": 2000, "n_primal": 1, "lr_y": 0.5, "lr_mu": 0.1, "tolerance": 1e-9}
PENALISED = {"lr_y_penalised": 0.05, "lr_mu_penalised": 1.2}


def tiny(seed: int = 0, n: int = 40, n_train: int = 8, **options) -> Svm:
    """Noisy samples of a plane in two dimensions; the first caps leave some constraints active, and none empty."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    labels = torch.sign(features[:, 0] + 0.5 * torch.randn(n, generator=generator, dtype=torch.float64))
    options = {"n_valid": 4, "caps": (0.6, 1.2)} | options
    problem = Svm(features, labels, n_train=n_train, **options)
    with torch.no_grad():  # a machine and some slack beyond what it needs: feasible
        problem.c.copy_(problem.loose([torch.tensor([0.8, 0.1, 0.0], dtype=torch.float64)]) + 0.1)
    return problem


def test_the_reader_fills_absent_indices_and_names_bad_lines(tmp_path):
    (tmp_path / "a").write_text("+1 1:0.5 3:-2 \n-1 2:1e-1")
    features, labels = read_libsvm(tmp_path / "a")
    assert features.tolist() == [[0.5, 0, -2], [0, 0.1, 0]]
    assert labels.tolist() == [1, -1]
    for text in ("+1 1:0.5\n2 1:0.5\n", "+1 1:0.5\n+1 one:0.5\n"):
        (tmp_path / "a").write_text(text)
        with pytest.raises(ValueError, match=r"a:2: found"):
            read_libsvm(tmp_path / "a")
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match="no samples"):
        read_libsvm(tmp_path / "a")


def test_the_expansion_has_all_monomials_of_degree_two():
    assert expand(torch.zeros(3, 8, dtype=torch.float64)).shape == (3, 45)
    assert expand(torch.tensor([[2.0, 3.0, 5.0]])).tolist() == [[1, 2, 3, 5, 4, 9, 25, 6, 10, 15]]
    assert expand(torch.tensor([[2.0]])).tolist() == [[1, 2, 4]]


def test_splits_are_disjoint_complete_and_follow_the_seed(shared):
    sizes = {"diabetes": (45, 118), "fourclass": (2, 212)}
    for name in DATASETS:
        features, labels = load(shared / "data/svm", name)
        problem, again, other = (Svm(features, labels, seed=seed) for seed in (3, 3, 4))
        parts = problem.parts
        assert (features.shape[1], len(parts["test"])) == sizes[name]
        assert (len(parts["train"]), len(parts["valid"])) == (500, 150)
        assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(len(labels)))
        assert torch.equal(parts["test"], again.parts["test"])
        assert torch.equal(problem.c, again.c)
        assert not torch.equal(parts["test"], other.parts["test"])


def test_caps_enter_the_constraints_with_minus_the_identity():
    problem = tiny()
    inequality, equality = problem.constraints()
    eye = torch.eye(len(inequality), dtype=inequality.dtype)
    d_c, d_y = torch.autograd.grad(inequality, [problem.c, problem.y], eye, is_grads_batched=True)
    assert torch.equal(d_c, -eye)
    assert torch.equal(d_y, -problem.train)
    assert equality.numel() == 0


def test_the_value_saddle_agrees_with_the_exact_program_and_its_optimality_conditions():
    problem = tiny(ridge_b=0.5)
    solver = Solver(gamma=3.0, **ACCURATE, **PENALISED)
    solver.backward(problem, (), ())
    y, mu = solver.value.y[0], solver.value.mu
    torch.testing.assert_close(y, problem.respond()[0], rtol=0, atol=1e-7)
    weights = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(weights * y, problem.train.T @ mu, rtol=0, atol=1e-8)
    assert mu.max() > 0.01
    margin = problem.constraints()[0] + problem.train @ (problem.y - y)
    assert (mu * margin).abs().max() < 1e-8


def objective(problem: Svm, gamma: float) -> tuple[float, float]:
    """v(c) and F_gamma(c), both saddles solved anew."""
    solver = Solver(gamma, **ACCURATE, **PENALISED)
    solver.backward(problem, (), ())
    with torch.no_grad(), vector.at(problem.lower_params(), problem.respond()):
        v = float(problem.lower())
    with torch.no_grad(), vector.at(problem.lower_params(), solver.penalised.y):
        return v, float(problem.upper() + gamma * (problem.lower() - v))


@pytest.mark.parametrize("regulariser", ["norm", "half_square"])
def test_gradients_of_v_and_of_f_gamma_agree_with_finite_differences(regulariser):
    gamma, eps = 3.0, 1e-4
    problem = tiny(regulariser=regulariser)
    solver = Solver(gamma, **ACCURATE, **PENALISED)
    solver.backward(problem, (), ())
    gradient, mu = problem.c.grad.clone(), solver.value.mu
    i, ends = int(torch.minimum(mu, solver.penalised.mu).argmax()), []
    for sign in (1, -1):
        moved = tiny(regulariser=regulariser)
        with torch.no_grad():
            moved.c[i] += sign * eps
        ends.append(objective(moved, gamma))
    slope_v, slope_f = ((a - b) / (2 * eps) for a, b in zip(*ends, strict=True))
    assert min(float(mu[i]), float(solver.penalised.mu[i])) > 0.01
    assert slope_v == pytest.approx(-float(mu[i]), abs=1e-5)
    assert slope_f == pytest.approx(float(gradient[i]), abs=1e-4)


def test_large_caps_teach_nothing_and_small_ones_leave_nothing():
    problem = tiny(n=120, n_train=80)
    with torch.no_grad():
        problem.c.fill_(1.0)
    assert problem.respond()[0].norm() < 1e-6
    assert problem.evaluate(problem.respond())["accuracy"] == 0.5  # no decision
    with torch.no_grad():
        problem.c.fill_(0.9)  # the samples are not separable
    with pytest.raises(Infeasible):
        problem.respond()


@pytest.mark.parametrize("regulariser", ["norm", "half_square"])
def test_the_optimum_is_a_lower_solution_and_no_feasible_pair_is_below_it(regulariser):
    problem = tiny(n=120, n_train=80, regulariser=regulariser)
    method = Optimum(problem)
    for number in range(1, 30):
        best = method.step(number)["upper_loss"]
    response = problem.respond()
    torch.testing.assert_close(response[0], method.y[0], rtol=0, atol=1e-6)
    assert problem.evaluate(response)["violation"] < 1e-8
    generator = torch.Generator().manual_seed(0)
    for scale in (0.01, 0.1, 1.0):
        y = method.y[0] + scale * torch.randn(3, generator=generator, dtype=torch.float64)
        with torch.no_grad(), vector.at([*problem.upper_params(), problem.y], [problem.loose([y]), y]):
            assert float(problem.upper()) > best


def test_the_released_scaling_halves_the_lower_loss_of_the_penalised_saddle_alone():
    gamma, options = 6.0, ACCURATE | PENALISED
    compat, half = Solver(gamma, **options), Solver(gamma / 2, **options)
    problem = tiny(compat_gamma=gamma)
    compat.backward(problem, (), ())
    half.backward(tiny(), (), ())
    torch.testing.assert_close(compat.penalised.y[0], half.penalised.y[0], rtol=0, atol=1e-7)
    direct = problem.c.detach() / problem.c.detach().norm()
    expected = direct + gamma * compat.value.mu - compat.penalised.mu  # the weight of v stays gamma
    torch.testing.assert_close(problem.c.grad, expected, rtol=0, atol=1e-10)


def test_published_settings_give_the_published_accuracy_at_y_f_and_a_trivial_y_g(shared):
    features, labels = load(shared / "data/svm", "diabetes")
    problem, rows = svm_methods.run(features, labels, "blocc", 0, {"n_steps": 20, "interval": 20})
    assert rows[-1]["accuracy_yF"] == pytest.approx(0.76, abs=0.03)
    assert rows[-1]["violation_yF"] > 0.3
    assert rows[-1]["accuracy_yg"] < 0.7
    assert rows[-1]["val_loss_yg"] == pytest.approx(torch.e, abs=0.05)  # y_g = 0
    assert float(problem.c.detach().min()) > 0.95


def test_good_settings_bring_y_g_to_y_f(shared):
    features, labels = load(shared / "data/svm", "diabetes")
    settings = yaml.safe_load((CONF / "good.yaml").read_text()) | {"n_steps": 100, "interval": 50}
    settings.pop("label")
    last = svm_methods.run(features, labels, "blocc", 0, settings)[1][-1]
    assert last["accuracy_yg"] == pytest.approx(0.76, abs=0.03)
    assert last["val_loss_yg"] == pytest.approx(last["val_loss_yF"], abs=0.02)
    assert max(last["violation_yF"], last["violation_yg"]) < 1e-6


def test_settings_files_state_the_defaults():
    settings = yaml.safe_load((CONF / "blocc.yaml").read_text())
    assert settings["solver_conf"] == svm_methods.PUBLISHED | {
        "n_iter": 20, "n_primal": 20, "accelerated": False, "tolerance": 0.0,
    }  # fmt: skip
    features = torch.randn(700, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.sign(features[:, 0])
    brief = {"n_steps": 2, "interval": 2}
    _, rows = svm_methods.run(features, labels, "blocc", 1, settings | brief)
    _, plain = svm_methods.run(features, labels, "blocc", 1, brief)
    assert [r | {"seconds": 0} for r in rows] == [r | {"seconds": 0} for r in plain]


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_settings_file_runs(name):
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    settings.pop("label", None)
    method = {"good": "blocc", "compat": "blocc"}.get(name, name.removesuffix("_good").removesuffix("_published"))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    labels = torch.sign(features[:, 0] + torch.randn(60, generator=generator, dtype=torch.float64))
    settings["problem_conf"] = settings.get("problem_conf", {}) | {"n_train": 30, "n_valid": 15}
    if method != "grid":
        settings["n_steps"] = 20 if method == "random" else 2
    last = svm_methods.run(features, labels, method, 0, settings)[1][-1]
    assert 0 <= last["accuracy_yF"] <= 1
    assert last["feasible"] in (0.0, 1.0)


def test_unknown_methods_and_settings_are_refused():
    features, labels = torch.randn(60, 2, dtype=torch.float64), torch.ones(60, dtype=torch.float64)
    with pytest.raises(ValueError, match="expected one of blocc"):
        svm_methods.run(features, labels, "block", 0, {})
    with pytest.raises(ValueError, match="settings of gam"):
        svm_methods.run(features, labels, "gam", 0, {"gama": 1, "problem_conf": {"n_train": 30, "n_valid": 15}})
    with pytest.raises(ValueError, match="regulariser 'l1'"):
        Svm(features, labels, regulariser="l1", n_train=30, n_valid=15)
    with pytest.raises(ValueError, match="expected more than"):
        Svm(features, labels)


def test_the_command_writes_a_result_and_a_trace(shared, tmp_path, capsys):
    options = ["--src", str(shared / "data/svm"), "--dataset", "fourclass", "--method", "grid", "--seed", "2"]
    main([*options, "--exp_dir", str(tmp_path), "--set", "constants=[0.01, 0.1, 1.0]", "--set", "label=three"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["method"], result["corpus"], result["seed"], result["params"]) == ("three", "svm_fourclass", 2, 503)
    assert result.keys() == {"method", "corpus", "seed", "params", "results", "cost", "config_sha256", "commit"}
    assert result["cost"].keys() == {"updates", "passes", "cpu_sec", "wall_sec", "peak_mem_mb"}
    rows = {row["metric"]: row for row in result["results"]}
    metrics = {f"{m}_{r}" for m in ("accuracy", "val_loss", "violation") for r in ("yF", "yg")}
    assert set(rows) == metrics | {"feasible"}
    assert rows["feasible"]["value"] == 1.0
    accuracy = rows["accuracy_yg"]
    assert accuracy.keys() == {"set", "metric", "value", "low", "high", "n_utts", "signature"}
    assert 0.6 < accuracy["low"] < accuracy["value"] < accuracy["high"] < 0.9
    assert accuracy["n_utts"] == 212
    assert rows["val_loss_yg"]["low"] is None
    trace = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert [row["step"] for row in trace] == [1, 2, 3]
    assert trace[-1]["seconds"] >= trace[0]["seconds"] > 0
    assert "seed 2" in capsys.readouterr().out


def test_wilsons_interval():
    low, high = svm_methods.wilson(0.5, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert svm_methods.wilson(1.0, 10)[1] == pytest.approx(1.0)
