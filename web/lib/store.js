/**
 * The one IndexedDB database: "keys" holds CryptoKeyPairs by name, "tokens" holds relay tokens by relay and holder. A token
 * alone opens nothing, so it may lie there in the clear.
 */

const DATABASE = "milliway";
const VERSION = 1;

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("keys");
      request.result.createObjectStore("tokens");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function run(store, mode, work) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(store, mode);
      let result;
      work(transaction.objectStore(store), (value) => (result = value));
      transaction.oncomplete = () => resolve(result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

/** @param {"keys" | "tokens"} store @param {string} key @returns {Promise<any>} */
export function get(store, key) {
  return run(store, "readonly", (objects, done) => {
    objects.get(key).onsuccess = (event) => done(event.target.result);
  });
}

/** @param {"keys" | "tokens"} store @param {string} key @param {unknown} value */
export function put(store, key, value) {
  return run(store, "readwrite", (objects) => objects.put(value, key));
}

/** @param {"keys" | "tokens"} store @param {string} key */
export function remove(store, key) {
  return run(store, "readwrite", (objects) => objects.delete(key));
}

/** Stores `value` unless the key is taken. @returns {Promise<any>} what is stored now */
export function insert(store, key, value) {
  return run(store, "readwrite", (objects, done) => {
    objects.get(key).onsuccess = (event) => {
      if (event.target.result === undefined) objects.add(value, key);
      done(event.target.result ?? value);
    };
  });
}
