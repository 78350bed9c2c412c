"""What a user writes, for test_typing.py: beside each line what a type checker must say of it. It is never run."""

import numpy as np
import torch
from torch import nn

from spectrain import approx, lowrank, matfun, objectives, optim
from spectrain import nn as layers

X, N, W = torch.eye(3), np.eye(3), nn.Parameter(torch.eye(3))

reveal_type(matfun.msign(X))  # Tensor
reveal_type(matfun.msign(W, steps=5))  # Tensor
reveal_type(matfun.msign(N, method="qdwh"))  # ndarray
reveal_type(matfun.msign([X, X]))  # list[Tensor]
reveal_type(matfun.polar(X).H)  # Tensor
reveal_type(matfun.polar(N).error)  # ndarray
reveal_type(matfun.mclip(X, 0, 1, tol=1e-3))  # Tensor
reveal_type(matfun.msoftclip(N, 1.0))  # ndarray
reveal_type(matfun.mthreshold(X, 1.0))  # Tensor
reveal_type(matfun.mstep(X))  # Tensor
reveal_type(matfun.mpsd(X))  # Tensor
reveal_type(matfun.mroot(X, 2, -1))  # Tensor
reveal_type(matfun.mapply(torch.sqrt, N))  # ndarray
reveal_type(matfun.effective_rank(X, kind="stable"))  # Tensor
reveal_type(matfun.spectral_norm(X).upper)  # Tensor
reveal_type(lowrank.svd(X, rank=1).S)  # Tensor
reveal_type(lowrank.svd(N, rank=1).Vh)  # ndarray
reveal_type(lowrank.svd(X, rank=1) @ X)  # Tensor
U, S, Vh = lowrank.svd(X, rank=1)
reveal_type(Vh)  # Tensor
reveal_type(lowrank.cur(X, rank=1).dense())  # Tensor
reveal_type(lowrank.interpolative(X, rank=1).Z)  # Tensor
reveal_type(lowrank.interpolative(N, rank=1, axis="rows").Z)  # ndarray
reveal_type(lowrank.interpolative(W, rank=1, axis="both").X)  # Tensor
reveal_type(lowrank.cr(X, X, count=2).error)  # Tensor
reveal_type(lowrank.nystrom(N, rank=1).F)  # ndarray
reveal_type(lowrank.pinv(N))  # ndarray
reveal_type(lowrank.pinv_factors(X).W)  # Tensor
reveal_type(lowrank.select_columns(X, 2))  # Tensor
reveal_type(lowrank.approx_matmul(X, X, count=2))  # Tensor

matfun.msign(X, tol="1e-3")  # error
matfun.msign(X, method="newton")  # error
matfun.mclip(X, 0, 1, method="qdwh")  # error
matfun.effective_rank(X, kind="erank")  # error
matfun.mroot(X, 2, side="middle")  # error
lowrank.svd(X, rank=1, method="lapack")  # error
lowrank.cur(X, rank=1, method="best")  # error
lowrank.cr(X, X, count=1, method="best")  # error
lowrank.interpolative(X, rank=1, axis="diagonal")  # error
lowrank.interpolative(X, rank=1, method="best")  # error
lowrank.interpolative(X, rank="1")  # error
approx.sign_schedule(0.1, steps=2, dtype="half")  # error
approx.root_schedule(2, lower=0.1, dtype="bfloat16")  # error
approx.as_code(approx.sign_schedule(0.1, steps=2), "tensorflow")  # error
layers.experts.MoE(8, experts=4, hidden=8, top_k=2, activation="tanh")  # error
layers.experts.MoE(8, experts=4, hidden=8, top_k=2, select="all")  # error
layers.experts.MoE(8, experts=4, hidden=8, top_k=2, balance="loss")  # error
layers.experts.MoE(8, experts=4, hidden=8, top_k=2, activation="sigmoid", balance="rms")
layers.experts.Penalty(kind="cubed")  # error
layers.experts.Penalty(scope="world")  # error
objectives.MeanFlow(lambda x, r, t: x, objective="score")  # error
objectives.MeanFlow(lambda x, r, t: x, law="normal")  # error
optim.Muon(nn.Linear(2, 2), scale="sqrt")  # error
optim.Muon(nn.Linear(2, 2), decay="coupled")  # error
optim.Muon(nn.Linear(2, 2), variant="soap")  # error
optim.Muon(nn.Linear(2, 2), variant="normuon", scale="moonlight", compute_dtype="bfloat16")
