from purejaxrl_sac.train import init, make_train, run, seed_axes, train
