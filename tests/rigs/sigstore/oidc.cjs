// An OpenID provider: browser flow with PKCE, what a GitHub runner is offered, and tokens on demand.
const crypto = require('crypto');
const jose = require('jose');

const KEY_ID = 'rig-1';

module.exports = async function openid({ url, routes, json }) {
  const keys = crypto.generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const jwk = { ...(await jose.exportJWK(keys.publicKey)), kid: KEY_ID, alg: 'ES256', use: 'sig' };
  const codes = {};
  let person = { sub: 'u1', email: 'alice@example.com', email_verified: true };

  async function mint({ lifetime = 600, ...claims }) {
    const now = Math.floor(Date.now() / 1000);
    return new jose.SignJWT({ aud: 'sigstore', iss: url, ...claims })
      .setProtectedHeader({ alg: 'ES256', kid: KEY_ID })
      .setIssuedAt(now)
      .setNotBefore(now - 5)
      .setExpirationTime(now + lifetime)
      .sign(keys.privateKey);
  }

  routes['GET /.well-known/openid-configuration'] = () =>
    json({
      issuer: url,
      jwks_uri: `${url}/keys`,
      authorization_endpoint: `${url}/auth`,
      token_endpoint: `${url}/token`,
      id_token_signing_alg_values_supported: ['ES256'],
    });
  routes['GET /keys'] = () => json({ keys: [jwk] });

  // Who signs in next, in the browser flow.
  routes['POST /login'] = ({ body }) => json((person = JSON.parse(body)));
  routes['GET /auth'] = ({ query }) => {
    const code = crypto.randomBytes(12).toString('hex');
    codes[code] = {
      nonce: query.get('nonce'),
      challenge: query.get('code_challenge'),
      redirect: query.get('redirect_uri'),
      audience: query.get('client_id'),
    };
    const answer = new URLSearchParams({ code, state: query.get('state') });
    return { status: 302, headers: { location: `${query.get('redirect_uri')}?${answer}` }, body: '' };
  };
  routes['POST /token'] = async ({ body }) => {
    const form = new URLSearchParams(body.toString());
    const held = codes[form.get('code')];
    delete codes[form.get('code')];
    const proof = crypto.createHash('sha256').update(form.get('code_verifier') || '');
    const known = held && held.redirect === form.get('redirect_uri');
    if (!known || proof.digest('base64url') !== held.challenge) {
      return json({ error: 'invalid_grant' }, 400);
    }
    const token = await mint({ ...person, aud: held.audience, nonce: held.nonce ?? undefined });
    return json({ access_token: token, id_token: token, token_type: 'Bearer' });
  };

  // GET $ACTIONS_ID_TOKEN_REQUEST_URL, with the runner's own secret.
  routes['GET /runner'] = async ({ headers, query }) =>
    /^bearer rig-runner$/i.test(headers.authorization || '')
      ? json({ value: await mint({ ...JSON.parse(query.get('claims')), aud: query.get('audience') }) })
      : json({ message: 'not a runner' }, 401);

  routes['POST /mint'] = async ({ body }) => json({ token: await mint(JSON.parse(body)) });

  return { publicKey: keys.publicKey };
};
