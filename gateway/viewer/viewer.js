/**
 * Shows the OpenAPI document of this gateway: each call with its parameters, bodies, answers and rules.
 *
 * Everything from the document is set as text, never as HTML.
 */

const RULES = ['format', 'pattern', 'enum', 'minimum', 'maximum', 'minLength', 'maxLength', 'minItems', 'maxItems', 'not', 'anyOf'];

const contract = await (await fetch('openapi.json')).json();

/** An element with attributes and children; a child is an element or a text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...children);
  return made;
}

/** The elements of a line: what stands in backticks is code. */
function line(text) {
  return text.split('`').map((part, index) => (index % 2 ? element('code', {}, part) : part));
}

/** The elements of a description: paragraphs, and lists of lines that begin with `* `. */
function prose(text = '') {
  return text.split('\n\n').filter(Boolean).map((paragraph) => {
    const lines = paragraph.split('\n');
    return lines[0].startsWith('* ')
      ? element('ul', {}, ...lines.map((each) => element('li', {}, ...line(each.slice(2)))))
      : element('p', {}, ...line(paragraph));
  });
}

/** What a reference leads to, with the keywords beside it. */
function resolved({ $ref, ...beside }) {
  return $ref ? { ...$ref.slice(2).split('/').reduce((node, key) => node[key], contract), ...beside } : beside;
}

/** The name of a schema's type. */
function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split('/').pop();
  if (schema.type === 'array') return `list of ${typeOf(schema.items ?? {})}`;
  return [schema.type ?? 'any'].flat().join(' or ');
}

/** The rules of a schema in one line. */
function rulesOf(schema) {
  return RULES.filter((rule) => rule in schema).map((rule) => `${rule}: ${JSON.stringify(schema[rule])}`).join(', ');
}

/** A named value: its type, whether it is required, its rules, its description, and its fields once it is opened. */
function value(name, schema, isRequired, description) {
  const inner = schema.items ?? schema.additionalProperties ?? schema;
  const rules = [rulesOf(schema), inner === schema ? '' : rulesOf(inner)].filter(Boolean).join('; ');
  const described = element('dd', {}, ...prose(description ?? schema.description));
  if (rules) described.append(element('p', { class: 'rules' }, element('code', {}, rules)));
  if (resolved(inner).properties) described.append(opened('Fields', () => [fields(inner)]));
  return [element('dt', {}, element('code', {}, name), ` ${typeOf(schema)}${isRequired ? ', required' : ''}`), described];
}

/** The fields of an object. */
function fields(schema) {
  const { properties = {}, required = [] } = resolved(schema);
  return element('dl', {}, ...Object.entries(properties).flatMap(([name, each]) => value(name, each, required.includes(name))));
}

/** A part that is made when it is opened first: objects may contain their own kind. */
function opened(title, make) {
  const part = element('details', {}, element('summary', {}, title));
  part.addEventListener('toggle', () => part.childElementCount === 1 && part.append(...make()), { once: true });
  return part;
}

/** The parts of a body: its schema and its example. */
function body({ content }) {
  return Object.entries(content).flatMap(([type, { schema = {}, example }]) => {
    const list = schema.type === 'array';
    const parts = [element('p', {}, element('code', {}, type), ` ${typeOf(schema)}`)];
    parts.push(...prose(resolved(list ? schema.items : schema).description), fields(list ? schema.items : schema));
    if (example !== undefined) parts.push(element('h4', {}, 'Example'), element('pre', { tabindex: '0' }, JSON.stringify(example, null, 2)));
    return parts;
  });
}

/** The parts of a call. */
function partsOf(call) {
  const parts = prose(call.description);
  const parameters = call.parameters.flatMap((each) => value(`${each.name} (${each.in})`, each.schema, each.required, each.description));
  if (parameters.length) parts.push(element('h3', {}, 'Parameters'), element('dl', {}, ...parameters));
  if (call.requestBody) parts.push(element('h3', {}, 'Body'), ...body(call.requestBody));
  parts.push(element('h3', {}, 'Answer'), ...body(call.responses[200]), element('h3', {}, 'Failures'));
  const failed = Object.entries(call.responses).filter(([status]) => status !== '200');
  parts.push(element('dl', {}, ...failed.flatMap(([status, each]) => [element('dt', {}, status), element('dd', {}, ...prose(resolved(each).description))])));
  return parts;
}

/** A call, closed. */
function shown(path, verb, call) {
  const made = opened('', () => partsOf(call));
  made.id = call.operationId;
  made.dataset.words = `${verb} ${path} ${call.operationId} ${call.description}`.toLowerCase();
  made.firstElementChild.append(
    element('span', { class: 'verb' }, verb.toUpperCase()),
    element('code', { class: 'path' }, path),
    element('span', { class: 'brief' }, ...line(call.summary)),
  );
  return made;
}

const calls = Object.entries(contract.paths).flatMap(([path, verbs]) => Object.entries(verbs).map(([verb, call]) => ({ path, verb, call })));
document.getElementById('about').append(...prose(contract.info.description));
document.getElementById('calls').replaceChildren(...contract.tags.map(({ name, description }) => element(
  'section',
  {},
  element('h2', {}, name),
  ...prose(description),
  ...calls.filter(({ call }) => call.tags.includes(name)).map(({ path, verb, call }) => shown(path, verb, call)),
)));

document.getElementById('find').addEventListener('input', ({ target }) => {
  const words = target.value.toLowerCase().split(/\s+/);
  document.querySelectorAll('[data-words]').forEach((each) => { each.hidden = !words.every((word) => each.dataset.words.includes(word)); });
  document.querySelectorAll('section').forEach((each) => { each.hidden = !each.querySelector('[data-words]:not([hidden])'); });
});

/** Opens the call that the address names. */
function openNamed() {
  const named = document.getElementById(location.hash.slice(1));
  if (named instanceof HTMLDetailsElement) {
    named.hidden = named.parentElement.hidden = false;
    // It is as long as its parts only once they are made.
    named.addEventListener('toggle', () => named.scrollIntoView(), { once: true });
    named.open = true;
  }
}
window.addEventListener('hashchange', openNamed);
openNamed();
