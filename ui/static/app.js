// wuamesh client script. Everything here is an enhancement: each page works with scripts off.
// No eval, no inline handlers, no style attributes, so it runs under script-src 'self'; style-src 'self'.
const $ = (s, r = document) => r.querySelector(s), $$ = (s, r = document) => [...r.querySelectorAll(s)];
const typing = e => e.target.closest('input:not([type=checkbox]):not([type=radio]),select,textarea,[contenteditable]');

// header checkbox of a table: all / some / none on this page
const master = $('[data-all]');
const boxes = () => $$('tbody .ck');
const syncMaster = () => { if (!master) return; const n = boxes().filter(b => b.checked).length; master.checked = n > 0 && n === boxes().length; master.indeterminate = n > 0 && n < boxes().length; };
master?.addEventListener('change', () => { boxes().forEach(b => b.checked = master.checked); });
let last; // shift-click and shift-x extend a range
const pick = (b, on, range) => {
  const all = boxes(), ends = [all.indexOf(last), all.indexOf(b)].sort((a, c) => a - c);
  (range && ends[0] >= 0 ? all.slice(ends[0], ends[1] + 1) : [b]).forEach(x => x.checked = on);
  last = b; syncMaster();
};
document.addEventListener('click', e => {
  const b = e.target.closest?.('tbody .ck');
  if (b) pick(b, b.checked, e.shiftKey);
  const c = e.target.closest?.('[data-copy]');
  if (c) navigator.clipboard?.writeText(c.dataset.copy);
});
syncMaster();

// theme: the server keeps the choice in a cookie; the script knows what is on now and spares the reload
$('[data-theme-form]')?.addEventListener('submit', e => {
  e.preventDefault();
  const r = document.documentElement, dark = r.dataset.theme ? r.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  const body = new URLSearchParams(new FormData(e.currentTarget));
  r.classList.add('still'); r.dataset.theme = dark ? 'light' : 'dark';
  body.set('theme', r.dataset.theme);
  fetch(e.currentTarget.action, { method: 'POST', body, credentials: 'same-origin', redirect: 'manual' }).catch(() => {});
  requestAnimationFrame(() => requestAnimationFrame(() => r.classList.remove('still')));
});

// keyboard: what the sheet behind "?" says
const rows = () => $$('tbody tr:has(.row-a)');
const rowOf = e => e?.closest?.('tbody tr');
const shown = e => e && e.checkVisibility?.() !== false;
const press = (selector, how = b => b.click()) => { const b = $$('main ' + selector).find(shown); if (b) how(b); return !!b; };
const visit = link => link && (location.href = link.href);
// an action on rows needs one that is ticked: the one in focus, if none is
const act = (name, how) => press(`button[name=do][value=${name}]`, b => {
  const own = boxes().filter(c => c.form === b.form);
  if (own.length && !own.some(c => c.checked)) { const c = $('.ck', rowOf(document.activeElement) ?? document.createElement('i')); if (!c) return; c.checked = true; syncMaster(); }
  how ? how(b) : b.click();
});
const seek = s => { s.focus(); s.select(); };
const letters = {
  '/': () => press('input[type=search]', seek) || seek($('#find')),
  '?': () => $('#keys')?.togglePopover(),
  f: () => { const r = $('.rail'); if (!r) return; if (!shown(r)) r.showPopover(); $('input.ck, summary', r)?.focus(); },
  j: () => step(1), k: () => step(-1),
  o: () => { const r = rowOf(document.activeElement); visit($('a[aria-label^="Explain"]', r ?? document.body) ?? $('.row-a', r ?? document.createElement('i'))); },
  x: e => { const b = $('.ck', rowOf(document.activeElement) ?? document.createElement('i')); if (b) pick(b, !b.checked, e.shiftKey); },
  a: () => act('allow'), b: () => act('forbid'), d: () => act('download'), s: () => act('scan'), i: () => act('install', b => b.focus()),
  '[': () => press('a[rel=first]'), ']': () => press('a[rel=next]'),
  u: () => { const up = location.pathname.replace(/\/[^/]*$/, ''); if (up) location.href = up; },
  z: () => $('.toast [data-undo]')?.click(),
};
letters.X = letters.x;
const step = by => {
  const list = rows(), at = list.findIndex(r => r.contains(document.activeElement));
  list[Math.max(0, Math.min(list.length - 1, at + by))]?.querySelector('.row-a')?.focus();
};
const sections = { o: 'overview', u: 'updates', r: 'rules', h: 'hosts', d: 'downloads', m: 'mesh', a: 'agents' };
let go = 0;
document.addEventListener('keydown', e => {
  if (e.isComposing || e.altKey || e.metaKey && e.key !== 'k') return;
  const stop = does => { e.preventDefault(); does(); };
  if (e.ctrlKey || e.metaKey) {
    if (e.key === 'k') stop(() => shown($('#find')) ? seek($('#find')) : visit($('a[href="/find"]')));
    if (e.key === 'a' && !typing(e) && e.target.closest('.grid-scroll, table')) stop(() => { boxes().forEach(b => b.checked = true); syncMaster(); });
    if (e.key === 'Enter') e.target.form?.requestSubmit();
    return;
  }
  if (e.key === 'Enter' && e.target.matches('tbody .ck')) return stop(() => visit($('.row-a', rowOf(e.target)))); // not the form's first button
  if (e.key === 'Escape' && !$(':popover-open') && !typing(e)) { boxes().forEach(b => b.checked = false); syncMaster(); return; }
  if (typing(e) || document.documentElement.dataset.keys === 'off' && e.key !== '?') return;
  if (Date.now() - go < 900 && sections[e.key]) { location.href = '/' + sections[e.key]; return; }
  go = 0;
  if (e.key === 'g') { go = Date.now(); return; }
  if (letters[e.key] && Object.hasOwn(letters, e.key)) stop(() => letters[e.key](e));
});

// filters apply as they are ticked; without scripts there is a button
$('form[data-auto]')?.addEventListener('change', e => { if (!typing(e)) e.currentTarget.submit(); });

const policy = window.trustedTypes?.createPolicy('wuamesh', { createHTML: s => s }) ?? { createHTML: s => s };
const parse = async answer => new DOMParser().parseFromString(policy.createHTML(await answer.text()), 'text/html');

// a form with a preview says what it would do 300 ms after the last change; without scripts there is a button
for (const form of $$('form[data-preview]')) {
  let timer, asked = 0;
  const preview = async () => {
    const mine = ++asked, body = new URLSearchParams(new FormData(form));
    body.set('do', 'preview');
    const answer = await fetch(form.action, { method: 'POST', body, credentials: 'same-origin' });
    if (mine !== asked || answer.redirected) return;
    const page = await parse(answer);
    for (const id of ['impact', 'merged', 'save']) {
      const now = page.getElementById(id), was = document.getElementById(id);
      if (now && was && !was.contains(document.activeElement)) was.replaceWith(document.adoptNode(now));
    }
    form.querySelector('[data-hint]')?.remove();
  };
  const later = e => { if (e.target.name !== 'csrf') { clearTimeout(timer); timer = setTimeout(preview, 300); } };
  form.addEventListener('input', later);
  form.addEventListener('change', later);
}

// live regions: the node says by topic what changed, the page fetches itself (or what data-from names) and replaces what follows that topic,
// unless someone is at work in there
const live = () => $$('[data-live]');
if (live().length) {
  const due = new Set();
  let timer;
  const atWork = r => r.matches('details[open]') || r.contains(document.activeElement) && document.activeElement !== r || r.querySelector('.ck:checked:not([data-all]), details[open] form, dialog[open]');
  const refresh = async () => {
    timer = 0;
    if (document.hidden) return; // what is due stays so until somebody looks
    const topics = new Set(due);
    due.clear();
    const wanted = live().filter(r => r.dataset.live.split(' ').some(t => topics.has(t)));
    for (const [from, regions] of Map.groupBy(wanted, r => r.dataset.from ?? location.href)) {
      const answer = await fetch(from, { credentials: 'same-origin' });
      if (!answer.ok || answer.redirected) continue;
      const page = await parse(answer);
      for (const r of regions) {
        const now = page.getElementById(r.id);
        if (now && r.isConnected && !atWork(r)) r.replaceWith(document.adoptNode(now));
      }
    }
  };
  const stream = new EventSource('/events');
  stream.onmessage = e => { e.data.split(' ').forEach(t => due.add(t)); timer ||= setTimeout(refresh, 700); };
  addEventListener('visibilitychange', () => { if (!document.hidden && due.size) timer ||= setTimeout(refresh, 0); });
  addEventListener('pagehide', () => stream.close());
}
