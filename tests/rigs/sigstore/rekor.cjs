// Rekor v1 (the mock signs the entry; body, tree and checkpoint are ours) and v2 (ours).
const crypto = require('crypto');
const canonicalize = require('canonicalize');
const { pem, rewrapped } = require('./adapted.cjs');
const { Tree, sha256 } = require('./tree.cjs');

const base64 = (data) => Buffer.from(data).toString('base64');
const rewrapped64 = (text) => base64(rewrapped(Buffer.from(text, 'base64').toString()));

// A real log takes no entry whose signature does not verify.
function dsseBody({ envelope: text, verifiers }) {
  const envelope = JSON.parse(text);
  const payload = Buffer.from(envelope.payload, 'base64');
  const type = Buffer.from(envelope.payloadType);
  const signed = Buffer.concat([
    Buffer.from(`DSSEv1 ${type.length} ${type} ${payload.length} `),
    payload,
  ]);
  const signatures = envelope.signatures.map(({ sig }, index) => {
    const verifier = verifiers[index] || verifiers[0];
    const key = crypto.createPublicKey(Buffer.from(verifier, 'base64'));
    if (!crypto.verify('sha256', signed, key, Buffer.from(sig, 'base64'))) {
      throw new Error('signature does not verify');
    }
    return { signature: sig, verifier: rewrapped64(verifier) };
  });
  const digest = (data) => ({ algorithm: 'sha256', value: sha256(data).toString('hex') });
  return { envelopeHash: digest(text), payloadHash: digest(payload), signatures };
}

function rekorV1({ host, routes, json, tlog, keys, tick }) {
  const tree = new Tree();
  const logged = new Set();
  const id = sha256(tlog.publicKey);

  routes['POST /api/v1/log/entries'] = async ({ body }) => {
    const entry = JSON.parse(body);
    if (entry.kind !== 'dsse') return json({ code: 400, message: `no ${entry.kind} here` }, 400);
    entry.spec = dsseBody(entry.spec.proposedContent);
    const once = sha256(JSON.stringify(entry)).toString('hex');
    if (logged.has(once)) return json({ code: 409, message: 'an equivalent entry exists' }, 409);
    logged.add(once);

    tick('rekor');
    const answer = await tlog.log(entry);
    const held = Object.values(answer)[0];
    const index = tree.add(Buffer.from(held.body, 'base64'));
    held.verification.inclusionProof = {
      logIndex: index,
      treeSize: tree.size,
      rootHash: tree.root.toString('hex'),
      hashes: tree.path(index).map((hash) => hash.toString('hex')),
      checkpoint: tree.checkpoint(`${host} - 4242`, host, id, (note) =>
        crypto.sign('sha256', note, keys.privateKey),
      ),
    };
    return json(answer, 201);
  };
}

function rekorV2({ host, routes, json, keys }) {
  const tree = new Tree();
  const raw = keys.publicKey.export({ format: 'der', type: 'spki' }).subarray(-32);
  const id = sha256(`${host}\n`, Buffer.from([1]), raw); // C2SP's key id for Ed25519

  routes['POST /api/v2/log/entries'] = ({ body }) => {
    const request = JSON.parse(body).hashedRekordRequestV002;
    if (!request) return json({ code: 3, message: 'not a hashedrekord' }, 400);
    const { keyDetails, x509Certificate } = request.signature.verifier;
    const key = crypto.createPublicKey(pem(Buffer.from(x509Certificate.rawBytes, 'base64')));
    if (key.asymmetricKeyType !== 'ec') return json({ code: 3, message: 'key of another type' }, 400);
    const entry = canonicalize({
      apiVersion: '0.0.2',
      kind: 'hashedrekord',
      spec: {
        hashedRekordV002: {
          data: { algorithm: 'SHA2_256', digest: request.digest },
          signature: {
            content: request.signature.content,
            verifier: { keyDetails, x509Certificate },
          },
        },
      },
    });
    const index = tree.add(Buffer.from(entry));
    return json(
      {
        logIndex: String(index),
        logId: { keyId: base64(id) },
        kindVersion: { kind: 'hashedrekord', version: '0.0.2' },
        integratedTime: '0',
        inclusionPromise: null,
        inclusionProof: {
          logIndex: String(index),
          rootHash: base64(tree.root),
          treeSize: String(tree.size),
          hashes: tree.path(index).map(base64),
          checkpoint: {
            envelope: tree.checkpoint(host, host, id, (note) => crypto.sign(null, note, keys.privateKey)),
          },
        },
        canonicalizedBody: base64(entry),
      },
      201,
    );
  };
  return { id };
}

module.exports = { rekorV1, rekorV2 };
