// node node.js URL VERSION ID [CAFILE]: a conversation in Node; its outcome is a line of JSON.
"use strict";

const fs = require("node:fs");
const mqtt = require("mqtt");
const { converse } = require("./conversation.js");

const [url, version, id, cafile] = process.argv.slice(2);
const more = cafile ? { ca: fs.readFileSync(cafile) } : {};
converse(mqtt, url, { version: Number(version), id, ...more }).then(
  (outcome) => process.stdout.write(`${JSON.stringify(outcome)}\n`),
  (error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  },
);
