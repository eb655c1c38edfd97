"""A client in another language, made from proto/ alone: values in, tokens out, and the ledger proven without the vault.

    python client.py STUBS ADDRESS PKI

STUBS is a folder with the modules that grpc_tools.protoc made, ADDRESS is host:port, PKI the folder of certificates.
Ends with a line of JSON; whatever is not as it should be ends it with an AssertionError.
"""

import base64
import hashlib
import json
import pathlib
import sys
import time

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

STUBS, ADDRESS, PKI = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
sys.path.insert(0, STUBS)

from strongroom.v1 import audit_pb2, audit_pb2_grpc, system_pb2, system_pb2_grpc, vault_pb2, vault_pb2_grpc  # noqa: E402

ID_CARD = "11010519491231002X"
OTHER_ID_CARD = "440524198801010011"


def channel(principal):
    """A connection over mutual TLS, as one of the principals."""
    read = lambda name: (PKI / name).read_bytes()
    credentials = grpc.ssl_channel_credentials(
        read("ca.pem"), private_key=read(f"{principal}.key"), certificate_chain=read(f"{principal}.pem")
    )
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.max_receive_message_length", 64 << 20)]
    return grpc.secure_channel(ADDRESS, credentials, options)


def item(field, value, subject="cust-1", **more):
    return vault_pb2.TokenizeItem(field=field, value=value.encode(), subject=subject, **more)


def tokenize(vault, *items, key=""):
    return list(vault.Tokenize(vault_pb2.TokenizeRequest(items=items, idempotency_key=key)).tokens)


def read(vault, *tokens, purpose="kyc_review", view="plain"):
    items = [vault_pb2.DetokenizeItem(token=token) for token in tokens]
    return list(vault.Detokenize(vault_pb2.DetokenizeRequest(items=items, purpose=purpose, view=view)).results)


def refusal(call):
    """The code and the google.rpc details of a call that must be refused."""
    try:
        call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        assert status is not None, "the refusal carries no google.rpc.Status"
        assert status.code == error.code().value[0] and status.message == error.details()
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        found = {detail.type_url.rsplit(".", 1)[-1] for detail in status.details}
        for detail in status.details:
            for known in (info, bad):
                if detail.Is(known.DESCRIPTOR):
                    detail.Unpack(known)
        assert "ErrorInfo" in found and info.domain == "strongroom", found
        broken = [(one.field, one.reason) for one in bad.field_violations]
        return error.code(), info.reason, broken, status.message
    raise AssertionError("it was not refused")


def values(vault):
    """Every call of the Vault service."""
    name, id_card, card = tokenize(
        vault,
        item("borrower.name", "欧阳志远"),
        item("borrower.id_card", ID_CARD),
        item("borrower.bank_card", "6222020200012345670"),
    )
    plain = read(vault, name, id_card)
    assert [result.value.decode() for result in plain] == ["欧阳志远", ID_CARD]
    assert [result.field for result in plain] == ["borrower.name", "borrower.id_card"]
    masked = read(vault, name, id_card, view="")
    assert [result.value.decode() for result in masked] == ["欧阳**", "110105********002X"]
    assert card.startswith("622202") and card.endswith("5670")

    asked = [vault_pb2.MatchItem(token=id_card, value=value.encode()) for value in (ID_CARD.lower(), OTHER_ID_CARD)]
    results = vault.Match(vault_pb2.MatchRequest(items=asked, purpose="kyc_review")).results
    assert [result.matched for result in results] == [True, False]
    assert [result.WhichOneof("result") for result in results] == ["matched", "matched"]

    def look_up(value):
        wanted = [vault_pb2.LookupItem(field="borrower.id_card", value=value.encode())]
        return list(vault.Lookup(vault_pb2.LookupRequest(items=wanted, purpose="kyc_review")).results[0].tokens)

    assert look_up(ID_CARD) == [id_card] and look_up(OTHER_ID_CARD) == []
    new = [vault_pb2.ReplaceItem(token=id_card, value=OTHER_ID_CARD.encode())]
    assert list(vault.Replace(vault_pb2.ReplaceRequest(items=new)).versions) == [2]
    assert look_up(ID_CARD) == [] and look_up(OTHER_ID_CARD) == [id_card]
    gone = [vault_pb2.DeleteItem(token=id_card), vault_pb2.DeleteItem(token="never-was")]
    first, second = vault.Delete(vault_pb2.DeleteRequest(items=gone)).results
    assert not first.HasField("problem")
    assert (second.problem.code, second.problem.reason) == (5, "NOT_FOUND")
    (result,) = read(vault, id_card)
    assert result.WhichOneof("result") == "problem" and result.problem.reason == "NOT_FOUND"

    # A retry under the same key makes no second token.
    once = item("borrower.name", "Ann")
    assert tokenize(vault, once, key="retry-1") == tokenize(vault, once, key="retry-1")
    later = Timestamp(seconds=int(time.time()) + 3600)
    tokenize(vault, item("borrower.name", "Bob", expire_time=later))
    return name


def streams(vault):
    requests = [
        vault_pb2.TokenizeRequest(items=[item("borrower.name", f"Borrower {n} of {m}") for n in range(20)])
        for m in range(5)
    ]
    requests.insert(2, vault_pb2.TokenizeRequest(items=[item("borrower.mobile", "12345")]))
    answers = list(vault.TokenizeStream(iter(requests)))
    assert [answer.WhichOneof("result") for answer in answers] == ["response"] * 2 + ["problem"] + ["response"] * 3
    problem = answers.pop(2).problem
    assert [(one.field, one.rule) for one in problem.violations] == [("items[0].value", "mobile")]

    def reads():
        for answer in answers:
            items = [vault_pb2.DetokenizeItem(token=token) for token in answer.response.tokens]
            yield vault_pb2.DetokenizeRequest(items=items, purpose="kyc_review", view="plain")

    for m, answer in enumerate(vault.DetokenizeStream(reads())):
        found = [result.value.decode() for result in answer.response.results]
        assert found == [f"Borrower {n} of {m}" for n in range(20)]


def refusals(vault, name):
    bad = [item("borrower.id_card", ID_CARD), item("borrower.id_card", "110105194912310021")]
    code, reason, broken, message = refusal(lambda: tokenize(vault, *bad))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "VALUE_INVALID")
    assert broken == [("items[1].value", "CHECK_DIGIT")]
    assert "110105194912310021" not in message and message.isascii()
    code, reason, broken, message = refusal(lambda: read(vault, name, purpose="curiosity"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and broken == [("purpose", "PURPOSE_UNKNOWN")]
    assert "kyc_review" in message
    audit = audit_pb2_grpc.AuditStub(channel("app"))
    code, reason, _, _ = refusal(lambda: audit.GetCheckpoint(audit_pb2.GetCheckpointRequest()))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "DENIED")
    code, reason, _, _ = refusal(lambda: next(audit.Export(audit_pb2.ExportRequest())))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "DENIED")


def leaf_hash(line):
    return hashlib.sha256(b"\x00" + line).digest()


def root(hashes):
    """The root of the tree over leaf hashes, as RFC 6962 section 2.1 defines it."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + root(hashes[:split]) + root(hashes[split:])).digest()


def opened(note, vkey):
    """Verifies a C2SP signed note by one key, and returns its text."""
    origin, key_id, key = vkey.split("+", 2)
    key = base64.b64decode(key)
    assert key[0] == 1, "not an Ed25519 key"
    expected_id = hashlib.sha256(origin.encode() + b"\n" + key).digest()[:4]
    assert expected_id.hex() == key_id
    text, signatures = note.split("\n\n", 1)
    for line in signatures.splitlines():
        dash, name, signature = line.split(" ")
        signature = base64.b64decode(signature)
        if dash == "\u2014" and name == origin and signature[:4] == expected_id:
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], (text + "\n").encode())
            return text.split("\n")
    raise AssertionError("the note bears no signature of the key")


def ledger():
    """Exports the ledger and proves it against the signed checkpoint; the vault is not asked."""
    audit = audit_pb2_grpc.AuditStub(channel("auditor"))
    head = audit.GetCheckpoint(audit_pb2.GetCheckpointRequest())
    origin, size, signed_root = opened(head.checkpoint, head.keys[0])
    assert origin == head.keys[0].split("+")[0] and origin.startswith("strongroom/")
    size = int(size)
    lines = [leaf for page in audit.Export(audit_pb2.ExportRequest(end=size)) for leaf in page.leaves]
    assert len(lines) == size > 10
    assert base64.b64encode(root([leaf_hash(line) for line in lines])).decode() == signed_root
    # One bit, and it is another tree.
    changed = [lines[0][:-1] + b"]"] + lines[1:]
    assert base64.b64encode(root([leaf_hash(line) for line in changed])).decode() != signed_root
    for index, line in enumerate(lines):
        leaf = json.loads(line)
        assert leaf["index"] == str(index)
        # There is one way of writing a leaf, and it is the one of Python's own module.
        assert json.dumps(leaf, separators=(",", ":")).encode() == line
        assert ID_CARD.encode() not in line and b"cust-1" not in line
    return size


def main():
    vault = vault_pb2_grpc.VaultStub(channel("app"))
    status = system_pb2_grpc.SystemStub(channel("app")).Status(system_pb2.StatusRequest())
    assert (status.principal, status.tenant, status.state) == ("app/app", "demo", "serving")
    name = values(vault)
    streams(vault)
    refusals(vault, name)
    print(json.dumps({"leaves": ledger()}))


main()
