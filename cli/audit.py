"""`pmp audit`: verifies that the records of erasures are unchanged."""

from __future__ import annotations

from cli.databases import service_sessions
from cli.errors import CommandFailed
from kit.people.derivation import InvalidKey, parse_key
from kit.people.signing import Signer
from services.gdpr.audit import faults
from services.gdpr.repository import Audit


async def verify(url: str, vault_key: str) -> tuple[int, list[str]]:
    """Returns the number of entries in gdpr's audit log, and its faults.

    Args:
        url: of the databases.
        vault_key: PMP_VAULT_KEY of the mesh that signed the receipts.

    Raises:
        CommandFailed: the key is invalid, or the database does not exist or fails.
    """
    try:
        signer = Signer(parse_key(vault_key))
    except InvalidKey as error:
        raise CommandFailed(str(error)) from error
    async with service_sessions("gdpr", url) as sessions, sessions.reading() as session:
        audit = Audit(session)
        chain, receipts, requests = await audit.chain(), await audit.receipts(), await audit.requests()

    def is_signed(document: str, signature: str) -> bool:
        return signer.is_signed(document.encode(), bytes.fromhex(signature))

    return len(chain), faults(chain, receipts, is_signed, requests)
