import json
import math
from pathlib import Path

import cvxpy
import numpy as np
import pytest
import torch

from bilevel.optim.lagrangian import Solver
from bilevel.problems import transport_methods
from bilevel.problems.lv_hba import LvHba
from bilevel.problems.network import Network, read_network
from bilevel.problems.transport import Transport

NETWORKS = Path(__file__).resolve().parents[2] / "egs/transport/bilevel1/networks"
UNIT = {"n_primal": 1, "lr_y": 1.0, "lr_mu": 1.0, "extrapolated": True}


@pytest.fixture(scope="module")
def three() -> Network:
    return read_network(NETWORKS / "three_node.json")


@pytest.fixture(scope="module")
def nine() -> Network:
    return read_network(NETWORKS / "nine_node.json")


def capacities(network: Network, low: float, high: float) -> torch.Tensor:
    """Uniform, but one link is nearly closed."""
    draw = torch.rand(len(network.tail), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = low + (high - low) * draw
    x[1] = 0.05
    return x


def exact(network: Network, x: torch.Tensor, gamma: float | None = None) -> tuple[np.ndarray, np.ndarray, float]:
    """(shares, capacity multipliers, value) of the published form by a conic solver: of g, or of f + gamma g."""
    w, u, m, d, c = (
        v.numpy() for v in (network.demand, network.outside, network.revenue, network.travel, network.building)
    )
    at = np.eye(network.n_stations)
    leaves, travels = at[network.tail] - at[network.head], at[network.origin] - at[network.destination]
    y, flow = cvxpy.Variable((len(w), 1)), cvxpy.Variable((len(w), len(d)), nonneg=True)
    g = w @ (-cvxpy.entr(y) - cvxpy.entr(1 - y) - 1 + cvxpy.multiply(u[:, None], 1 - y)) + w @ flow @ d
    total = g if gamma is None else c @ x.numpy() - (m * w) @ y + gamma * g
    limit = w @ flow <= x.numpy()
    balance = flow @ leaves == cvxpy.multiply(y @ np.ones((1, len(at))), travels)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(total)), [limit, balance])
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return y.value[:, 0], limit.dual_value, problem.value


def settled(problem: Transport, gamma: float, n_iter: int = 2000) -> Solver:
    """A solver that has solved both saddles at the present x."""
    problem.x.grad = None
    solver = Solver(gamma, n_iter=n_iter, tolerance=1e-9, **UNIT)
    solver.backward(problem, (), ())
    return solver


def test_a_file_becomes_vectors_without_missing_links(tmp_path):
    matrices = json.loads((NETWORKS / "three_node.json").read_text())
    changed = matrices | {"d": [[0, 1, 1e4], [1, 0, 2], [1e4, 2, 0]], "demand": [[5, 1, 0], [1, 0, 1], [1, 1, 0]]}
    (tmp_path / "n.json").write_text(json.dumps(changed))
    network = read_network(tmp_path / "n.json")
    assert network.tail.tolist() == [0, 1, 1, 2]
    assert network.head.tolist() == [1, 0, 2, 1]
    assert network.building.tolist() == [1, 1, 3, 3]
    assert network.origin.tolist() == [0, 1, 1, 2, 2]
    assert network.destination.tolist() == [1, 0, 2, 0, 1]
    assert network.revenue.tolist() == [2, 2, 1, 6, 1]
    (tmp_path / "n.json").write_text(json.dumps({key: matrices[key] for key in "duc"}))
    with pytest.raises(ValueError, match="no m, demand"):
        read_network(tmp_path / "n.json")
    (tmp_path / "n.json").write_text(json.dumps(matrices | {"u": [[0, 3], [3, 0]]}))
    with pytest.raises(ValueError, match="u of another size than d; expected 3"):
        read_network(tmp_path / "n.json")


@pytest.mark.parametrize("name", ["three_node", "nine_node", "seville"])
def test_the_recipe_s_networks(name):
    network = read_network(NETWORKS / f"{name}.json")
    counts = network.n_stations, len(network.tail), len(network.origin)
    assert counts == {"three_node": (3, 6, 6), "nine_node": (9, 30, 72), "seville": (24, 88, 552)}[name]
    assert (network.places is not None) == (name == "seville")
    assert min(v.min() for v in (network.travel, network.building, network.demand)) > 0


@pytest.mark.parametrize(("commodities", "n_flows"), [("pair", 6), ("origin", 3)])
@pytest.mark.parametrize("scaled", [True, False])
def test_trips_along_paths_keep_conservation_and_load_their_links(three, commodities, n_flows, scaled):
    problem = Transport(three, torch.full((6,), 0.8), commodities, scaled)  # shares start at .5
    assert [tuple(p.shape) for p in problem.lower_params()] == [(6,), (n_flows, 6)]
    assert [p.numel() for p in problem.constraints(())] == [6, 3 * n_flows]
    assert problem.incidence.sum(0).tolist() == [0] * 6
    assert problem.incidence.abs().sum(0).tolist() == [2] * 6
    link = {ends: n for n, ends in enumerate(zip(three.tail.tolist(), three.head.tolist(), strict=True))}
    paths = {ends: [ends] for ends in link} | {(0, 2): [(0, 1), (1, 2)], (2, 0): [(2, 1), (1, 0)]}
    trips = torch.zeros(n_flows, 6, dtype=torch.float64)
    for k, ends in enumerate(zip(three.origin.tolist(), three.destination.tolist(), strict=True)):
        for hop in paths[ends]:
            trips[k if commodities == "pair" else ends[0], link[hop]] += 0.5
    with torch.no_grad():
        problem.flow.copy_(trips / problem.trips([None, torch.ones((), dtype=torch.float64)]))
    found = problem.evaluate([p.detach() for p in problem.lower_params()])
    assert problem.constraints(())[1].abs().max().item() < 1e-12
    assert found["violation"] == pytest.approx(1.0 - 0.8)  # two pairs of .5 on the links of the detour
    assert found["served"] == pytest.approx(0.5)
    assert found["utility"] == pytest.approx(0.5 * (2 + 6 + 2 + 1 + 6 + 1) - 0.8 * (1 + 10 + 1 + 3 + 10 + 3))
    assert found["upper"] == pytest.approx(problem.upper(()).item())


def test_the_scaled_jacobian_has_norm_at_most_1(three, nine):
    for network in (three, nine):
        for commodities in ("pair", "origin"):
            problem = Transport(network, torch.ones(len(network.tail)), commodities)  # shares .5: the steepest point
            values = torch.cat(problem.constraints(()))
            rows = [torch.autograd.grad(v, problem.lower_params(), retain_graph=True) for v in values]
            jacobian = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])
            assert 0.3 < torch.linalg.matrix_norm(jacobian, 2).item() <= 1.0 + 1e-12


def test_without_tight_capacities_shares_are_a_logit_choice(nine):
    problem = Transport(nine, torch.full((30,), 1e3), "origin")
    solver = settled(problem, 2.0)
    distance = torch.full((9, 9), math.inf, dtype=torch.float64)
    distance.fill_diagonal_(0.0)
    distance[nine.tail, nine.head] = nine.travel
    for middle in range(9):
        distance = torch.minimum(distance, distance[:, middle, None] + distance[middle])
    gain = nine.outside - distance[nine.origin, nine.destination]
    torch.testing.assert_close(problem.shares(solver.value.y), gain.sigmoid(), rtol=0, atol=1e-6)
    with_revenue = (gain + nine.revenue / 2.0).sigmoid()
    torch.testing.assert_close(problem.shares(solver.penalised.y), with_revenue, rtol=0, atol=2e-6)
    assert solver.value.mu.max() == 0


@pytest.mark.parametrize("commodities", ["pair", "origin"])
@pytest.mark.parametrize("name", ["three", "nine"])
def test_both_saddles_agree_with_a_conic_solver(name, commodities, request):
    network = request.getfixturevalue(name)
    x = capacities(network, 0.3, 1.0) if name == "three" else capacities(network, 3.0, 12.0)
    problem, gamma = Transport(network, x, commodities), 3.0
    solver = settled(problem, gamma)
    for saddle, weight in ((solver.value, None), (solver.penalised, gamma)):
        share, prices, value = exact(network, x, weight)
        assert max(prices) > 0.5
        np.testing.assert_allclose(problem.shares(saddle.y), share, atol=2e-5)
        np.testing.assert_allclose(problem.capacity_prices(saddle.mu), prices, atol=1e-3)
        with torch.no_grad():
            for p, y in zip(problem.lower_params(), saddle.y, strict=True):
                p.copy_(y)
            loss = problem.lower(()) if weight is None else problem.upper(()) + gamma * problem.lower(())
        assert loss.item() == pytest.approx(value, abs=1e-3)
    assert max(solver.violations.values()) < 1e-4


@pytest.mark.parametrize("gamma", [2.0, 4.0])
def test_gradients_agree_with_finite_differences_of_the_conic_values(three, gamma):
    x, eps = capacities(three, 0.3, 1.0), 1e-3
    problem = Transport(three, x)
    solver = settled(problem, gamma)
    prices = problem.capacity_prices(solver.value.mu)
    for n in range(len(x)):
        move = torch.zeros_like(x)
        move[n] = eps
        values = [[exact(three, x + sign * move, weight)[2] for weight in (None, gamma)] for sign in (1, -1)]
        slope_v, slope_both = ((values[0][i] - values[1][i]) / (2 * eps) for i in (0, 1))
        assert slope_v == pytest.approx(-prices[n].item(), abs=5e-3)
        assert slope_both - gamma * slope_v == pytest.approx(problem.x.grad[n].item(), abs=1e-2)


@pytest.mark.parametrize(("gamma", "yg", "yf"), [(4.0, 1.701, 1.797), (8.0, 1.724, 1.775)])
def test_three_nodes_reach_the_known_design(three, gamma, yg, yf):
    design = transport_methods.run(three, "blocc", gamma, seed=0, settings={"n_final": 1000})
    assert design.metrics["utility_yg"] == pytest.approx(yg, abs=0.01)
    assert design.metrics["utility_yF"] == pytest.approx(yf, abs=0.01)
    assert max(design.metrics[key] for key in ("violation_yg", "violation_yF")) < 1e-3
    built = {
        (i, j): x for i, j, x in zip(three.tail.tolist(), three.head.tolist(), design.problem.x.tolist(), strict=True)
    }
    assert {ends for ends, x in built.items() if x > 0.01} == {(0, 1), (1, 0)}
    assert built[0, 1] == pytest.approx(0.90, abs=0.01)
    assert built[1, 0] == pytest.approx(0.90, abs=0.01)


def test_without_multiplier_terms_nothing_is_built(three):
    settings = {"n_steps": 50, "n_final": 10}
    design = transport_methods.run(three, "no_multipliers", 4.0, seed=0, settings=settings)
    assert design.problem.x.max().item() == design.problem.floor


def test_respond_gives_the_lower_solution_in_the_variables_of_the_problem(three):
    x = capacities(three, 0.3, 1.0)
    share, _, _ = exact(three, x)
    for scaled in (True, False):
        problem = Transport(three, x, scaled=scaled)
        response = problem.respond()
        np.testing.assert_allclose(problem.shares(response), share, atol=1e-4)
        assert problem.evaluate(response)["violation"] < 1e-4


def test_lv_hba_keeps_its_pair_feasible_and_needs_the_plain_variables(three):
    settings = {"n_steps": 60, "interval": 30}
    design = transport_methods.run(three, "lv_hba", 4.0, seed=0, settings=settings)
    assert len(design.rows) == 2
    assert design.metrics["violation_yF"] < 1e-8
    with pytest.raises(ValueError, match="not affine"):
        LvHba(Transport(three, capacities(three, 0.3, 1.0)), *design.problem.bounds())


def test_reported_metrics_leave_out_what_is_hardly_there(three):
    problem = Transport(three, torch.tensor([0.9, 0.005, 0.9, 0.005, 0.005, 0.005]), scaled=False)
    y = [torch.tensor([0.8, 0.01, 0.8, 0.01, 0.01, 0.01], dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)]
    assert problem.evaluate(y, reported=True)["utility"] == pytest.approx(2 * (2 * 0.8 - 0.9))
    assert problem.evaluate(y)["utility"] == pytest.approx(
        2 * (2 * 0.8 - 0.9) + 0.01 * (6 + 1 + 6 + 1) - 0.005 * (10 + 3 + 10 + 3)
    )


def test_senseless_settings_are_refused(three):
    with pytest.raises(ValueError, match="expected pair or origin"):
        Transport(three, torch.ones(6), commodities="node")
    with pytest.raises(ValueError, match=r"eps 0\.7"):
        Transport(three, torch.ones(6), eps=0.7)
    with pytest.raises(ValueError, match="method 'gam': expected one of blocc"):
        transport_methods.run(three, "gam", 4.0, 0, {})
    with pytest.raises(ValueError, match=r"settings of blocc: .*'steps'"):
        transport_methods.run(three, "blocc", 4.0, 0, {"steps": 3})
