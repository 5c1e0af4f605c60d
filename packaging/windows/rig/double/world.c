/* What a test made true: the catalogue it wrote and what was done with it. */
#include "double.h"

WCHAR dir[MAX_PATH];
Update **updates; int nupdates;
History *history; int nhistory;
static Fault *faults; static int nfaults;
Scan scans[16]; int nscans;
BOOL reboot_required;
static FILETIME catalog_time;
LONG search_ms;

WCHAR *dup(const WCHAR *s) { return _wcsdup(s ? s : L""); }

static void join(WCHAR *out, const WCHAR *name)
{
    _snwprintf(out, MAX_PATH, L"%ls\\%ls", dir, name);
}

/* split text into lines in place; NULL at the end */
static WCHAR *next_line(WCHAR **p)
{
    WCHAR *line = *p + wcsspn(*p, L"\r\n");
    if (!*line) return NULL;
    *p = line + wcscspn(line, L"\r\n");
    if (**p) *(*p)++ = 0;
    return line;
}

/* append one UTF-8 line to a file in the data directory */
void append(const WCHAR *file, const WCHAR *fmt, ...)
{
    WCHAR path[MAX_PATH], line[4096];
    char utf8[8192];
    va_list ap;
    HANDLE h;
    DWORD n;

    va_start(ap, fmt);
    _vsnwprintf(line, 4095, fmt, ap);
    va_end(ap);
    line[4095] = 0;
    n = WideCharToMultiByte(CP_UTF8, 0, line, -1, utf8, sizeof utf8 - 1, NULL, NULL);
    if (!n) return;
    utf8[n - 1] = '\n';
    join(path, file);
    h = CreateFileW(path, FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_ALWAYS, 0, NULL);
    if (h == INVALID_HANDLE_VALUE) return;
    WriteFile(h, utf8, n, &n, NULL);
    CloseHandle(h);
}

/* read a whole UTF-8 file as UTF-16; the caller frees it */
static WCHAR *slurp(const WCHAR *file, FILETIME *mtime)
{
    WCHAR path[MAX_PATH], *w;
    HANDLE h;
    DWORD size, got = 0;
    char *buf;
    int n;

    join(path, file);
    h = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
    if (h == INVALID_HANDLE_VALUE) return NULL;
    if (mtime) GetFileTime(h, NULL, NULL, mtime);
    size = GetFileSize(h, NULL);
    buf = malloc(size + 1);
    ReadFile(h, buf, size, &got, NULL);
    CloseHandle(h);
    buf[got] = 0;
    n = MultiByteToWideChar(CP_UTF8, 0, buf, -1, NULL, 0);
    w = malloc(n * sizeof *w);
    MultiByteToWideChar(CP_UTF8, 0, buf, -1, w, n);
    free(buf);
    return w;
}

const WCHAR *attr(const Update *u, const WCHAR *key)
{
    for (int i = 0; i < u->nattrs; i++)
        if (!wcscmp(u->attrs[i].key, key)) return u->attrs[i].val;
    return NULL;
}

LONG num(const Update *u, const WCHAR *key, LONG dflt)
{
    const WCHAR *v = attr(u, key);
    return v ? (LONG)wcstoul(v, NULL, 0) : dflt;
}

Update *find_in(Update **list, int n, const WCHAR *id, LONG rev)
{
    for (int i = 0; i < n; i++) {
        Update *u = list[i];
        if (!_wcsicmp(u->id, id) && (rev == 0 || u->rev == rev)) return u;
        u = find_in(u->kids, u->nkids, id, rev);
        if (u) return u;
    }
    return NULL;
}

static Update *new_update(WCHAR *args)
{
    Update *u = calloc(1, sizeof *u);
    swscanf(args, L"%39ls %ld", u->id, &u->rev);
    return u;
}

/* catalog.txt: "update ID REV" opens an update, "bundled ID REV" a child of it,
 * "file URL SIZE SHA1" adds content, "fault OP HR COUNT" injects failures,
 * any other "key value" line is an attribute. */
static void load_catalog(void)
{
    FILETIME t = {0};
    WCHAR *text = slurp(L"catalog.txt", &t), *pos = text, *line;
    Update *top = NULL, *cur = NULL;

    if (!text) return;
    if (!CompareFileTime(&t, &catalog_time) && updates) { free(text); return; }
    catalog_time = t;
    updates = NULL; nupdates = 0;       /* the old catalog may still be referenced: never freed */
    nfaults = 0; search_ms = 0;
    while ((line = next_line(&pos))) {
        WCHAR *val = wcschr(line, ' ');
        if (line[0] == '#') continue;
        if (val) *val++ = 0; else val = line + wcslen(line);
        if (!wcscmp(line, L"update")) {
            top = cur = new_update(val);
            *GROW(updates, nupdates) = top;
        } else if (!wcscmp(line, L"bundled") && top) {
            cur = new_update(val);
            *GROW(top->kids, top->nkids) = cur;
        } else if (!wcscmp(line, L"file") && cur) {
            File *f = GROW(cur->files, cur->nfiles);
            WCHAR url[2048] = L"", sha[41] = L"";
            memset(f, 0, sizeof *f);
            swscanf(val, L"%2047ls %I64d %40ls", url, &f->size, sha);
            f->url = dup(url);
            f->delta = wcsstr(url, L".psf") != NULL;
            WideCharToMultiByte(CP_ACP, 0, sha, -1, f->sha1, sizeof f->sha1, NULL, NULL);
        } else if (!wcscmp(line, L"fault")) {
            Fault *f = GROW(faults, nfaults);
            WCHAR hr[16] = L"0";
            memset(f, 0, sizeof *f);
            f->left = 1;
            swscanf(val, L"%31ls %15ls %ld", f->op, hr, &f->left);
            f->hr = (HRESULT)wcstoul(hr, NULL, 0);
        } else if (!wcscmp(line, L"searchms")) {
            search_ms = wcstol(val, NULL, 10);
        } else if (cur) {
            Attr *a = GROW(cur->attrs, cur->nattrs);
            a->key = dup(line);
            a->val = dup(val);
        }
    }
    free(text);
}

const WCHAR *basename_of(const WCHAR *path)
{
    const WCHAR *p = path;
    for (; *path; path++) if (*path == '/' || *path == '\\') p = path + 1;
    return p;
}

static void reset_state(Update **list, int n)
{
    for (int i = 0; i < n; i++) {
        Update *u = list[i];
        u->installed = num(u, L"installed", 0);
        u->hidden = num(u, L"hidden", 0);
        u->eula = num(u, L"eula", 1);
        u->pending = FALSE;
        for (int f = 0; f < u->nfiles; f++) u->files[f].copied = FALSE;
        reset_state(u->kids, u->nkids);
    }
}

static void after_reboot(void)
{
    for (int i = 0; i < nupdates; i++)
        if (updates[i]->pending) { updates[i]->pending = FALSE; updates[i]->installed = TRUE; }
    reboot_required = FALSE;
}

void load_state(void)
{
    WCHAR *text, *pos, *line;

    load_catalog();
    reset_state(updates, nupdates);
    reboot_required = FALSE;
    nhistory = 0;
    pos = text = slurp(L"state.txt", NULL);
    if (!text) return;
    while ((line = next_line(&pos))) {
        WCHAR op[16] = L"", id[40] = L"", rest[2048] = L"";
        LONG rev = 0;
        Update *u;
        int got = swscanf(line, L"%15ls %39ls %ld %2047l[^\n]", op, id, &rev, rest);
        if (got < 1) continue;
        if (!wcscmp(op, L"rebooted")) { after_reboot(); continue; }
        if (!wcscmp(op, L"history")) {
            History *h = GROW(history, nhistory);
            memset(h, 0, sizeof *h);
            wcscpy(h->id, id);
            h->rev = rev;
            swscanf(rest, L"%ld %ld %lf", &h->result, &h->hr, &h->when);
            continue;
        }
        u = find_in(updates, nupdates, id, rev);
        if (!u) continue;
        if (!wcscmp(op, L"installed")) u->installed = TRUE;
        else if (!wcscmp(op, L"removed")) u->installed = u->pending = FALSE;
        else if (!wcscmp(op, L"pending")) { u->pending = TRUE; reboot_required = TRUE; }
        else if (!wcscmp(op, L"eula")) u->eula = TRUE;
        else if (!wcscmp(op, L"hidden")) u->hidden = rest[0] != '0';
        else if (!wcscmp(op, L"copied"))
            for (int i = 0; i < u->nfiles; i++)
                if (!_wcsicmp(basename_of(u->files[i].url), rest)) u->files[i].copied = TRUE;
    }
    free(text);
}

HRESULT fault(const WCHAR *op)
{
    for (int i = 0; i < nfaults; i++)
        if (!wcscmp(faults[i].op, op) && faults[i].left > 0) {
            faults[i].left--;
            LOG(L"fault %ls 0x%08lX", op, faults[i].hr);
            return faults[i].hr;
        }
    return S_OK;
}

/* The real API fails with ERROR_SERVICE_DISABLED when wuauserv is disabled and
 * demand-starts it otherwise. Without a wuauserv in the prefix: no gate. */
HRESULT need_service(void)
{
    union { QUERY_SERVICE_CONFIGW c; BYTE raw[8192]; } cfg;
    SERVICE_STATUS st;
    DWORD need;
    HRESULT hr = S_OK;
    SC_HANDLE scm = OpenSCManagerW(NULL, NULL, SC_MANAGER_CONNECT), svc;

    if (!scm) return S_OK;
    svc = OpenServiceW(scm, L"wuauserv", SERVICE_QUERY_CONFIG | SERVICE_QUERY_STATUS | SERVICE_START);
    if (svc) {
        if (QueryServiceConfigW(svc, &cfg.c, sizeof cfg, &need) && cfg.c.dwStartType == SERVICE_DISABLED)
            hr = HRESULT_FROM_WIN32(ERROR_SERVICE_DISABLED);
        else if (QueryServiceStatus(svc, &st) && st.dwCurrentState != SERVICE_RUNNING) {
            LOG(L"demand-start wuauserv");
            StartServiceW(svc, 0, NULL);
            for (int i = 0; i < 100; i++) {
                if (QueryServiceStatus(svc, &st) && st.dwCurrentState == SERVICE_RUNNING) break;
                Sleep(100);
            }
            if (st.dwCurrentState != SERVICE_RUNNING) hr = HRESULT_FROM_WIN32(ERROR_SERVICE_REQUEST_TIMEOUT);
        }
        CloseServiceHandle(svc);
    }
    CloseServiceHandle(scm);
    return hr;
}
