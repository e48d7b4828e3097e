// A Sigstore on one loopback port: Fulcio, CT log, Rekor v1 and v2, timestamps, OpenID.
// Prints one line of JSON when it is ready; ends when its standard input does.
//
//   POST /mint   {claims}                     -> {token}
//   POST /login  {claims}                     who signs in next in a browser
//   POST /skew   {fulcio, rekor, tsa}         seconds by which a service's clock is off
//   POST /fault  [{path, times, status, body, delay_ms, drop, drip_ms}]   GET: paths that were hit
const crypto = require('crypto');
const http = require('http');
const { mock } = require('./adapted.cjs');
const fulcio = require('./fulcio.cjs');
const openid = require('./oidc.cjs');
const { rekorV1, rekorV2 } = require('./rekor.cjs');
const tsa = require('./tsa.cjs');
const { sha256 } = require('./tree.cjs');

const P256 = 'PKIX_ECDSA_P256_SHA_256';
const MEDIA = 'application/vnd.dev.sigstore';
const base64 = (data) => Buffer.from(data).toString('base64');
const json = (value, status = 200) => ({ status, body: JSON.stringify(value) });
const later = (ms) => new Promise((done) => setTimeout(done, ms));
const routes = {};
const faults = [];
const hits = [];

async function answer(request, body) {
  const url = new URL(request.url, 'http://rig');
  const route = routes[`${request.method} ${url.pathname.replace(/\/$/, '')}`];
  if (!route) return json({ message: 'no such route' }, 404);
  try {
    return await route({ body, headers: request.headers, query: url.searchParams });
  } catch (error) {
    return json({ code: 400, message: String(error.message || error) }, 400);
  }
}

// Do what a broken service does. Returns true where that was the answer.
async function broken(request, response) {
  const path = new URL(request.url, 'http://rig').pathname;
  const fault = faults.find((each) => path.startsWith(each.path) && each.times !== 0);
  if (!fault) return false;
  if (fault.times > 0) fault.times -= 1;
  hits.push(path);
  if (fault.delay_ms) await later(fault.delay_ms);
  if (fault.drop) {
    request.socket.destroy();
    return true;
  }
  if (fault.drip_ms) {
    for (const letter of 'HTTP/1.1 200 OK\r\nx-slow: ' + 'a'.repeat(4000)) {
      if (request.socket.destroyed) break;
      request.socket.write(letter);
      await later(fault.drip_ms);
    }
    request.socket.destroy();
    return true;
  }
  if (!fault.status) return false;
  response.writeHead(fault.status, { 'content-type': 'application/json' });
  response.end(fault.body ?? JSON.stringify({ code: fault.status, message: 'injected' }));
  return true;
}

async function handle(request, response, body) {
  if (await broken(request, response)) return;
  const { status = 200, type = 'application/json', headers = {}, body: text } = await answer(request, body);
  response.writeHead(status, { 'content-type': type, ...headers });
  response.end(text);
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => handle(request, response, Buffer.concat(parts)));
});

async function services(url) {
  const { host } = new URL(url);
  const pair = () => crypto.generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const v1Keys = pair();
  const v2Keys = crypto.generateKeyPairSync('ed25519');
  const skew = { fulcio: 0, rekor: 0, tsa: 0 };
  // One clock that the mock's services hold, in whole seconds: DER drops a trailing zero of a
  // fraction, and @sigstore/core then refuses the time.
  const clock = new Date();
  const tick = (who) => clock.setTime((Math.floor(Date.now() / 1000) + skew[who]) * 1000);
  tick('fulcio');

  const ct = await mock.initializeCTLog(pair(), clock);
  const ca = await mock.initializeCA(pair(), ct, clock);
  const authority = await mock.initializeTSA(pair(), clock);
  const tlog = await mock.initializeTLog(url, v1Keys, clock);
  const shared = { url, host, routes, json, tick };
  fulcio({ ...shared, ca, openid: await openid(shared) });
  rekorV1({ ...shared, tlog, keys: v1Keys });
  const v2 = rekorV2({ ...shared, keys: v2Keys });
  tsa({ ...shared, authority });

  routes['POST /skew'] = ({ body }) => json(Object.assign(skew, JSON.parse(body)));
  routes['POST /fault'] = ({ body }) => {
    hits.length = 0;
    faults.splice(0, faults.length, ...JSON.parse(body));
    return json(faults);
  };
  routes['GET /fault'] = () => json({ hits });

  return trust({
    url,
    ca: [ca.rootCertificate],
    tsa: [authority.intCertificate, authority.rootCertificate],
    ct: ct.publicKey,
    v1: tlog.publicKey,
    v2: { id: v2.id, publicKey: v2Keys.publicKey.export({ format: 'der', type: 'spki' }) },
  });
}

// The documents that a client is given: whom to trust, and where to sign.
function trust({ url, ca, tsa: tsaChain, ct, v1, v2 }) {
  const validFor = { start: new Date(Date.now() - 3600_000).toISOString().replace(/\.\d+/, '') };
  const chain = (certificates) => ({
    subject: { organization: 'rig', commonName: 'rig' },
    uri: url,
    certChain: { certificates: certificates.map((der) => ({ rawBytes: base64(der) })) },
    validFor,
  });
  const log = (der, keyDetails, id = sha256(der)) => ({
    baseUrl: url,
    hashAlgorithm: 'SHA2_256',
    publicKey: { rawBytes: base64(der), keyDetails, validFor },
    logId: { keyId: base64(id) },
  });
  const trustedRoot = {
    mediaType: `${MEDIA}.trustedroot+json;version=0.1`,
    tlogs: [log(v1, P256), log(v2.publicKey, 'PKIX_ED25519', v2.id)],
    certificateAuthorities: [chain(ca)],
    ctlogs: [log(ct, P256)],
    timestampAuthorities: [chain(tsaChain)],
  };
  const service = (at, majorApiVersion = 1) => ({ url: at, majorApiVersion, validFor, operator: 'rig' });
  const signingConfig = (version) => ({
    mediaType: `${MEDIA}.signingconfig.v0.2+json`,
    caUrls: [service(url)],
    oidcUrls: [service(url)],
    rekorTlogUrls: [service(url, version)],
    rekorTlogConfig: { selector: 'ANY' },
    tsaUrls: [service(`${url}/api/v1/timestamp`)],
    tsaConfig: { selector: 'ANY' },
  });
  return { trustedRoot, signingConfig: { 1: signingConfig(1), 2: signingConfig(2) } };
}

server.listen(0, '127.0.0.1', async () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  console.log(JSON.stringify({ url, ...(await services(url)) }));
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
