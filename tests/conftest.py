import signal

# A shell that starts the tests in its background has SIGINT ignored, and whatever they start inherits that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
