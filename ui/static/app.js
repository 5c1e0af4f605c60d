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
document.addEventListener('click', e => {
  const b = e.target.closest?.('tbody .ck');
  if (b) { const all = boxes(); if (e.shiftKey && last) { const [i, j] = [all.indexOf(last), all.indexOf(b)].sort((a, c) => a - c); all.slice(i, j + 1).forEach(x => x.checked = b.checked); } last = b; syncMaster(); }
  const c = e.target.closest?.('[data-copy]');
  if (c) navigator.clipboard?.writeText(c.dataset.copy);
});
syncMaster();

// theme: server remembers the choice in a cookie; the script only avoids the round trip
$('[data-theme-form]')?.addEventListener('submit', e => {
  e.preventDefault();
  const r = document.documentElement, dark = r.dataset.theme ? r.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  r.classList.add('still'); r.dataset.theme = dark ? 'light' : 'dark';
  requestAnimationFrame(() => requestAnimationFrame(() => r.classList.remove('still')));
});

// keyboard: j/k rows, x select, / search, g+letter navigate
let go = 0;
const rows = () => $$('tbody tr:has(.row-a)');
document.addEventListener('keydown', e => {
  if (e.metaKey || e.altKey || typing(e)) return;
  if (e.ctrlKey) return;
  if (e.key === '/') { const s = $('input[type=search]'); if (s) { e.preventDefault(); s.focus(); } return; }
  if (Date.now() - go < 900) { const to = { o: 'overview', u: 'updates', r: 'rules', h: 'hosts', d: 'downloads', m: 'mesh' }[e.key]; go = 0; if (to) location.href = '/' + to; return; }
  if (e.key === 'g') { go = Date.now(); return; }
  if (e.key === 'j' || e.key === 'k') {
    const list = rows(), at = list.findIndex(r => r.contains(document.activeElement));
    list[Math.max(0, Math.min(list.length - 1, at + (e.key === 'j' ? 1 : -1)))]?.querySelector('.row-a')?.focus();
  }
  if (e.key === 'x') { const b = document.activeElement.closest('tr')?.querySelector('.ck'); if (b) b.click(); }
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
    for (const id of ['impact', 'save']) {
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
    const topics = new Set(due);
    due.clear();
    const wanted = live().filter(r => r.dataset.live.split(' ').some(t => topics.has(t)));
    if (!wanted.length || document.hidden) return;
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
  addEventListener('pagehide', () => stream.close());
}
