"""Nutshell's own client of a Lightning node, LND or Core Lightning, asks for an invoice of 21 sat, says its payment hash,
waits for a line and says how the invoice stands. The settings are in the environment, as Nutshell reads them."""
import asyncio
import sys

from cashu.core.base import Amount, Unit

if sys.argv[1] == "lnd":
    from cashu.lightning.lndrest import LndRestWallet as Client
else:
    from cashu.lightning.clnrest import CLNRestWallet as Client


async def main():
    client = Client(Unit.sat)
    made = await client.create_invoice(Amount(Unit.sat, 21), "a test", expiry=600)
    assert made.ok, made.error_message
    print(made.checking_id, flush=True)
    for _ in range(2):
        sys.stdin.readline()
        status = await client.get_invoice_status(made.checking_id)
        print(status.result.name, flush=True)


asyncio.run(main())
