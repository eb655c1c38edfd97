"""moto, which answers as AWS does, on a free port of the loopback.

Its address is the first line that it prints. Then each line of standard input is a command, and each is answered by a
line; it ends when standard input does, so it outlives no test.
"""

import json
import sys

from moto import settings
from moto.iam.models import iam_backends
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

ACCOUNT = "123456789012"
USER = "vault"


def iam():
    return iam_backends[ACCOUNT]["aws"]


def make_user(_):
    """Makes the vault's user. From here on signatures and rights are looked at."""
    iam().create_user("us-east-1", USER)
    key = iam().create_access_key(USER)
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    return f"{key.access_key_id} {key.secret_access_key}"


def set_policy(text):
    """Gives the user this policy in the place of the last."""
    json.loads(text)
    iam().put_user_policy(USER, "vault", text)
    return "done"


def main():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print("http://%s:%d" % server.get_host_and_port(), flush=True)
    for line in sys.stdin:
        command, _, argument = line.rstrip("\n").partition(" ")
        print({"user": make_user, "policy": set_policy}[command](argument), flush=True)


main()
