// What MQTT.js does in the tests, the same in Node and in a browser: a hundred messages to a host that sends each back,
// then a connection that is lost and comes again with its Session.
"use strict";

const MESSAGES = 100;
const BYTES_MAX = 200 * 1024;
const TIMEOUT_MS = 60_000;

/// From one byte to 200 KiB, each a little larger than the one before.
function size(n) {
  return Math.max(1, Math.round(BYTES_MAX ** (n / (MESSAGES - 1))));
}

function payload(n) {
  return new Uint8Array(size(n)).map((_, at) => (at * 31 + n) & 0xff);
}

function isEqual(a, b) {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

/// Resolves with the arguments of the next `event`.
function next(client, event) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event} in ${TIMEOUT_MS} ms`)), TIMEOUT_MS);
    client.once(event, (...args) => {
      clearTimeout(timer);
      resolve(args);
    });
  });
}

/// Talks to the host behind the broker at `url`, and says how it went.
async function converse(mqtt, url, { version, id, ...more }) {
  const client = mqtt.connect(url, {
    protocolVersion: version,
    clientId: id,
    clean: false,
    properties: version === 5 ? { sessionExpiryInterval: 60 } : undefined,
    reconnectPeriod: 50,
    ...more,
  });
  try {
    await next(client, "connect");
    await client.subscribeAsync(`${id}/back/#`, { qos: 1 });
    let equal = 0;
    const all = new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${equal} of ${MESSAGES} came back`)), TIMEOUT_MS);
      client.on("message", (topic, body) => {
        const n = Number(topic.split("/").pop());
        equal += isEqual(body, payload(n)) ? 1 : 0;
        if (equal === MESSAGES) {
          clearTimeout(timer);
          resolve();
        }
      });
    });
    for (let n = 0; n < MESSAGES; n++) {
      client.publish(`${id}/out/${n}`, payload(n), { qos: 1 + (n % 2) });
    }
    await all;
    client.removeAllListeners("message");
    // The host takes the connection away, and says something before it is back.
    const again = next(client, "connect");
    const waiting = next(client, "message");
    client.publish(`${id}/lose`, "", { qos: 0 });
    const [connack] = await again;
    const [, missed] = await waiting;
    return { equal, sessionPresent: connack.sessionPresent, missed: new TextDecoder().decode(missed) };
  } finally {
    await client.endAsync(true);
  }
}

/// Whether a connection comes about: an error or an end says that it does not.
async function isLetIn(mqtt, url) {
  const client = mqtt.connect(url, { reconnectPeriod: 0, connectTimeout: TIMEOUT_MS });
  const refused = Promise.race([next(client, "error"), next(client, "close")]).then(() => false);
  const answer = await Promise.race([next(client, "connect").then(() => true), refused]);
  await client.endAsync(true);
  return answer;
}

if (typeof module !== "undefined") {
  module.exports = { converse, isLetIn };
}
