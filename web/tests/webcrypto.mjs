/** Node 18, which Debian 12 brings, has WebCrypto but not yet under its global name. Import before the library. */

import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;
