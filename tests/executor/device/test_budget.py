import threading

from sam2_blocks.executor.device.budget import ByteBudget


def test_threads_together_stay_within_the_budget():
    budget, lock, pair = ByteBudget(100), threading.Lock(), threading.Barrier(2)
    held, most = 0, 0

    def work():
        nonlocal held, most
        for turn in range(50):
            with budget.taken(40):
                with lock:
                    held += 40
                    most = max(most, held)
                if turn == 0:  # two have it at once, however slow threads start
                    pair.wait(120)
                threading.Event().wait(0.0005)
                with lock:
                    held -= 40

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert held == 0
    assert most == 80


def test_one_alone_may_take_more():
    budget = ByteBudget(100)
    with budget.taken(500):
        pass
    with budget.taken(100):
        pass


def test_what_fails_gives_back():
    budget = ByteBudget(100)
    for _ in range(3):
        try:
            with budget.taken(100):
                raise RuntimeError
        except RuntimeError:
            pass
    with budget.taken(100):
        pass
