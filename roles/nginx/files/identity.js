// SPDX-License-Identifier: Apache-2.0
// Managed by Ansible (gpufleet.metal.nginx).
// Who asks, and may they? NGINX asks this before it passes a request on (auth_request); njs 0.8.9 or newer.
//
// identity_service.py answers the same question where njs is too old. Both follow the same steps in the same order, and one table of
// cases is run against both: what changes here changes there.
//
// Answers: 204 with X-Gateway-Identity; 401 or 403 with X-Gateway-Challenge, the value of WWW-Authenticate; 503 if the question can't be
// answered. Each request reads its files anew (njs starts every request from a fresh state), so they are never stale.
import fs from 'fs';
import hashing from 'crypto';

const CONFIGURATION = '/etc/gpufleet/identity.json';
const UNKNOWN_KEY_MARK = '/run/gpufleet-identity/unknown_key';
const SMALLEST_MODULUS_BYTES = 256;

const BASE64URL = /^[A-Za-z0-9_-]+$/;
const CREDENTIALS = /^Bearer +([A-Za-z0-9._~+\/-]+=*) *$/i;
const SCHEME = /^Bearer( |$)/i;
// Goes into a header and into the log: nothing but visible ASCII, with spaces inside at most.
const IDENTITY = /^[\x21-\x7e]([\x20-\x7e]{0,254}[\x21-\x7e])?$/;

const UNAVAILABLE = {status: 503};

function refused(description) {
  return {status: 401, error: 'invalid_token', description: description};
}

// Whether a pattern matches all of a text: '$' alone would let a line's end pass.
function isWhole(pattern, text) {
  const found = pattern.exec(text);
  return found !== null && found[0].length === text.length;
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isNumber(value) {
  return typeof value === 'number' && Number.isFinite(value);
}

// Returns the object that a part of a token holds, or null.
function decoded(part) {
  if (!isWhole(BASE64URL, part) || part.length % 4 === 1) {
    return null;
  }
  try {
    const value = JSON.parse(new TextDecoder('utf-8', {fatal: true}).decode(Buffer.from(part, 'base64url')));
    return isObject(value) ? value : null;
  } catch (fault) {
    return null;
  }
}

function bytesOf(text) {
  return typeof text === 'string' && isWhole(BASE64URL, text) ? Buffer.from(text, 'base64url') : Buffer.from('');
}

// Whether a key of the set is the one that a token names, and of the algorithm that it claims.
function fits(key, kid, algorithm) {
  if (!isObject(key) || key.kid !== kid || (key.use !== undefined && key.use !== 'sig')) {
    return false;
  }
  if (key.alg !== undefined && key.alg !== algorithm) {
    return false;
  }
  if (algorithm === 'RS256') {
    return key.kty === 'RSA' && bytesOf(key.n).length >= SMALLEST_MODULUS_BYTES && bytesOf(key.e).length > 0;
  }
  return key.kty === 'EC' && key.crv === 'P-256' && bytesOf(key.x).length === 32 && bytesOf(key.y).length === 32;
}

async function isSigned(key, algorithm, signed, signature) {
  try {
    if (algorithm === 'RS256') {
      const rsa = {name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256'};
      const plain = {kty: 'RSA', n: key.n, e: key.e, alg: 'RS256', ext: true};
      const imported = await crypto.subtle.importKey('jwk', plain, rsa, true, ['verify']);
      return await crypto.subtle.verify(rsa, imported, signature, signed);
    }
    if (signature.length !== 64) {
      return false;
    }
    const point = {kty: 'EC', crv: 'P-256', x: key.x, y: key.y, ext: true};
    const curve = {name: 'ECDSA', namedCurve: 'P-256'};
    const importedPoint = await crypto.subtle.importKey('jwk', point, curve, true, ['verify']);
    return await crypto.subtle.verify({name: 'ECDSA', hash: 'SHA-256'}, importedPoint, signature, signed);
  } catch (fault) {
    return false;
  }
}

// Says which claim refuses the token, or null.
function claimFault(claims, jwt, now) {
  if (claims.iss !== jwt.issuer) {
    return 'the token is from another issuer';
  }
  const audiences = Array.isArray(claims.aud) ? claims.aud : [claims.aud];
  if (!audiences.some((audience) => typeof audience === 'string' && jwt.audiences.includes(audience))) {
    return 'the token is for another audience';
  }
  if (!isNumber(claims.exp)) {
    return 'the token has no expiry';
  }
  if (claims.exp + jwt.leeway_seconds < now) {
    return 'the token has expired';
  }
  if (claims.nbf !== undefined && (!isNumber(claims.nbf) || claims.nbf - jwt.leeway_seconds > now)) {
    return 'the token is not valid yet';
  }
  const identity = claims[jwt.identity_claim];
  if (typeof identity !== 'string' || !isWhole(IDENTITY, identity)) {
    return 'the token names no identity';
  }
  return null;
}

function scopesOf(claims, names) {
  let scopes = [];
  names.forEach((name) => {
    const value = claims[name];
    if (typeof value === 'string') {
      scopes = scopes.concat(value.split(' '));
    } else if (Array.isArray(value)) {
      scopes = scopes.concat(value.filter((scope) => typeof scope === 'string'));
    }
  });
  return scopes;
}

function readKeys(path) {
  try {
    const keys = JSON.parse(fs.readFileSync(path, 'utf8')).keys;
    return Array.isArray(keys) ? keys : null;
  } catch (fault) {
    return null;
  }
}

async function judgeToken(token, jwt, now) {
  const parts = token.split('.');
  if (parts.length !== 3) {
    return refused('neither a known key nor a token');
  }
  const header = decoded(parts[0]);
  const claims = decoded(parts[1]);
  if (header === null || claims === null || !isWhole(BASE64URL, parts[2]) || parts[2].length % 4 === 1) {
    return refused('the token is malformed');
  }
  if (header.alg !== 'RS256' && header.alg !== 'ES256') {
    return refused('the token is signed with an algorithm that is not accepted');
  }
  if (header.crit !== undefined) {
    return refused('the token demands an extension');
  }
  // Where a token says that its key is to be found (jku, jwk, x5u, x5c) is never looked at.
  if (typeof header.kid !== 'string') {
    return refused('the token names no key');
  }
  const keys = readKeys(jwt.jwks_path);
  if (keys === null) {
    return UNAVAILABLE;
  }
  const key = keys.find((candidate) => fits(candidate, header.kid, header.alg));
  if (key === undefined) {
    if (jwt.jwks_url !== null) {
      fs.writeFileSync(UNKNOWN_KEY_MARK, '');
    }
    return refused('the token is signed with an unknown key');
  }
  const signed = Buffer.from(`${parts[0]}.${parts[1]}`);
  if (!await isSigned(key, header.alg, signed, Buffer.from(parts[2], 'base64url'))) {
    return refused('the signature is wrong');
  }
  const fault = claimFault(claims, jwt, now);
  if (fault !== null) {
    return refused(fault);
  }
  return {status: 204, identity: `jwt:${claims[jwt.identity_claim]}`, scopes: scopesOf(claims, jwt.scope_claims)};
}

async function judge(configuration, authorization, scope, now) {
  if (!SCHEME.test(authorization)) {
    return {status: 401};
  }
  const credentials = CREDENTIALS.exec(authorization);
  if (credentials === null || credentials[0].length !== authorization.length) {
    return refused('the credentials are malformed');
  }
  const hash = hashing.createHash('sha256').update(credentials[1]).digest('hex');
  const known = configuration.api_keys[hash];
  let verdict;
  if (known !== undefined) {
    verdict = {status: 204, identity: known.identity, scopes: known.scopes};
  } else if (configuration.jwt === null) {
    verdict = refused('no such key');
  } else {
    verdict = await judgeToken(credentials[1], configuration.jwt, now);
  }
  if (verdict.status === 204 && scope !== '' && !verdict.scopes.includes(scope)) {
    return {
      status: 403, identity: verdict.identity, scope: scope, error: 'insufficient_scope',
      description: 'the credentials lack the scope of this path',
    };
  }
  return verdict;
}

// Returns the value of WWW-Authenticate (RFC 6750, section 3).
function challenge(realm, verdict) {
  let value = `Bearer realm="${realm}"`;
  if (verdict.error !== undefined) {
    value += `, error="${verdict.error}", error_description="${verdict.description}"`;
  }
  if (verdict.scope !== undefined) {
    value += `, scope="${verdict.scope}"`;
  }
  return value;
}

async function decide(r) {
  let verdict = UNAVAILABLE;
  let realm = '';
  try {
    const configuration = JSON.parse(fs.readFileSync(CONFIGURATION, 'utf8'));
    realm = configuration.realm;
    const scope = r.variables.gateway_scope || '';
    verdict = await judge(configuration, r.variables.http_authorization || '', scope, Date.now() / 1000);
  } catch (fault) {
    r.error(`identity: ${fault.message}`);
  }
  r.status = verdict.status;
  if (verdict.identity !== undefined) {
    r.headersOut['X-Gateway-Identity'] = verdict.identity;
  }
  if (verdict.status === 401 || verdict.status === 403) {
    r.headersOut['X-Gateway-Challenge'] = challenge(realm, verdict);
    r.headersOut['X-Gateway-Denial'] = verdict.description || 'no credentials';
  }
  r.sendHeader();
  r.finish();
}

export default {decide};
