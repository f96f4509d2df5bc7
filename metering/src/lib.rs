//! What it cost: msat, tariff, meter, allowance, lease, ledger, receipt.
