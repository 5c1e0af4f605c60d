/* IUpdateSearcher: the search language, supersedence, history. */
#include "double.h"

typedef struct { const WCHAR *p; const Update *u; BOOL bad; } Parser;

static void skip(Parser *s) { while (iswspace(*s->p)) s->p++; }

static BOOL word(Parser *s, const WCHAR *w)
{
    size_t n = wcslen(w);
    skip(s);
    if (_wcsnicmp(s->p, w, n) || iswalnum(s->p[n])) return FALSE;
    s->p += n;
    return TRUE;
}

static BOOL parse_and(Parser *s);

static BOOL criterion(Parser *s)
{
    WCHAR name[40], val[128];
    int n = 0, not = 0, contains = 0;
    LONG have = 0;
    const Update *u = s->u;

    skip(s);
    while (iswalpha(*s->p) && n < 39) name[n++] = *s->p++;
    name[n] = 0;
    if (word(s, L"contains")) contains = 1;
    else {
        skip(s);
        if (*s->p == '!') { not = 1; s->p++; }
        if (*s->p++ != '=') { s->bad = TRUE; s->p--; return FALSE; }
    }
    skip(s);
    n = 0;
    if (*s->p == '\'') {
        for (s->p++; *s->p && *s->p != '\'' && n < 127; s->p++) val[n++] = *s->p;
        if (*s->p++ != '\'') { s->bad = TRUE; s->p--; return FALSE; }
    } else {
        while (iswdigit(*s->p) && n < 127) val[n++] = *s->p++;
        if (!n) { s->bad = TRUE; return FALSE; }
    }
    val[n] = 0;
    if (!_wcsicmp(name, L"Type")) {
        const WCHAR *t = attr(u, L"type");
        return (_wcsicmp(t ? t : L"software", val) == 0) != not;
    }
    if (!_wcsicmp(name, L"UpdateID")) return (_wcsicmp(u->id, val) == 0) != not;
    if (not) { s->bad = TRUE; return FALSE; }
    if (!_wcsicmp(name, L"RevisionNumber")) return u->rev == wcstol(val, NULL, 10);
    if (!_wcsicmp(name, L"DeploymentAction")) return TRUE;
    if (!_wcsicmp(name, L"CategoryIDs") && contains) {
        for (int i = 0; i < u->nattrs; i++)
            if (!wcscmp(u->attrs[i].key, L"category") && wcsstr(u->attrs[i].val, val)) return TRUE;
        return FALSE;
    }
    if (!_wcsicmp(name, L"IsInstalled") || !_wcsicmp(name, L"IsPresent")) have = u->installed;
    else if (!_wcsicmp(name, L"IsHidden")) have = u->hidden;
    else if (!_wcsicmp(name, L"BrowseOnly")) have = num(u, L"browseonly", 0);
    else if (!_wcsicmp(name, L"AutoSelectOnWebSites")) have = num(u, L"autoselect", 0);
    else if (!_wcsicmp(name, L"IsAssigned")) have = 1;
    else if (!_wcsicmp(name, L"RebootRequired")) have = u->pending;
    else s->bad = TRUE;
    return have == wcstol(val, NULL, 10);
}

static BOOL primary(Parser *s)
{
    BOOL r;
    skip(s);
    if (*s->p != '(') return criterion(s);
    s->p++;
    r = parse_and(s);       /* "or" is only allowed at the top level */
    skip(s);
    if (*s->p == ')') s->p++; else s->bad = TRUE;
    return r;
}
static BOOL parse_and(Parser *s)
{
    BOOL r = primary(s);
    while (!s->bad && word(s, L"and")) { BOOL x = primary(s); r = r && x; }
    return r;
}
static BOOL parse_or(Parser *s)
{
    BOOL r = parse_and(s);
    while (!s->bad && word(s, L"or")) { BOOL x = parse_and(s); r = r || x; }
    return r;
}

static HRESULT match(const WCHAR *criteria, const Update *u, BOOL *yes)
{
    Parser s = {criteria, u, FALSE};
    *yes = parse_or(&s);
    skip(&s);
    return s.bad || *s.p ? WU_E_INVALID_CRITERIA : S_OK;
}

/* superseded by an update that is installed or that the search returns */
static BOOL superseded(const Update *u, const WCHAR *criteria)
{
    for (int i = 0; i < nupdates; i++)
        for (int k = 0; k < updates[i]->nattrs; k++) {
            BOOL yes;
            if (wcscmp(updates[i]->attrs[k].key, L"supersedes") || _wcsicmp(updates[i]->attrs[k].val, u->id)) continue;
            if (updates[i]->installed || (SUCCEEDED(match(criteria, updates[i], &yes)) && yes)) return TRUE;
        }
    return FALSE;
}

static HRESULT searcher_search(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    const WCHAR *criteria;
    Obj *list, *res;
    BOOL all = V_BOOL(prop(o, L"IncludePotentiallySupersededUpdates")) != 0, known = FALSE;
    HRESULT hr;

    if (n != 1 || V_VT(&a[0]) != VT_BSTR) return E_INVALIDARG;
    criteria = V_BSTR(&a[0]) ? V_BSTR(&a[0]) : L"";
    load_state();
    LOG(L"Search selection=%ld service=%ls superseded=%d %ls", V_I4(prop(o, L"ServerSelection")),
        V_BSTR(prop(o, L"ServiceID")), all, criteria);
    if (FAILED(hr = need_service())) return hr;
    if (FAILED(hr = fault(L"Search"))) return hr;
    if (V_I4(prop(o, L"ServerSelection")) != 3) return WU_E_NAME_NOT_RESOLVED;    /* there is no Internet here */
    for (int i = 0; i < nscans; i++) known |= !_wcsicmp(scans[i].id, V_BSTR(prop(o, L"ServiceID")));
    if (!known) return WU_E_DS_UNKNOWNSERVICE;
    if (search_ms) Sleep(search_ms);
    list = new_collection(FALSE);
    for (int i = 0; i < nupdates; i++) {
        BOOL yes;
        if (FAILED(hr = match(criteria, updates[i], &yes))) { obj_release((IDispatch *)list); return hr; }
        if (yes && (all || !superseded(updates[i], criteria))) push_obj(list, wrap_update(updates[i]));
    }
    LOG(L"Search found %d", list->nitems);
    res = new_obj(NULL);
    add_obj(res, L"Updates", list);
    add_long(res, L"ResultCode", 2);
    add_obj(res, L"RootCategories", new_collection(TRUE));
    add_obj(res, L"Warnings", new_collection(TRUE));
    ret_obj(ret, res);
    return S_OK;
}

static HRESULT searcher_count(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    load_state();
    ret_long(ret, nhistory);
    return S_OK;
}

static HRESULT searcher_history(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    Obj *c;
    LONG start, count;

    if (n != 2 || V_VT(&a[0]) != VT_I4 || V_VT(&a[1]) != VT_I4) return E_INVALIDARG;
    start = V_I4(&a[0]);
    count = V_I4(&a[1]);
    if (start < 0 || count <= 0) return WU_E_INVALIDINDEX;
    load_state();
    c = new_collection(TRUE);
    for (int i = nhistory - 1 - start; i >= 0 && count > 0; i--, count--) {     /* newest first */
        History *h = &history[i];
        Update *u = find_in(updates, nupdates, h->id, 0);
        Obj *e = new_obj(NULL), *id = new_obj(NULL);
        add_str(id, L"UpdateID", h->id);
        add_long(id, L"RevisionNumber", h->rev);
        add_obj(e, L"UpdateIdentity", id);
        add_long(e, L"Operation", 1);
        add_long(e, L"ResultCode", h->result);
        add_long(e, L"HResult", h->hr);
        add_long(e, L"UnmappedResultCode", h->hr);
        add_date(e, L"Date", h->when);
        add_str(e, L"Title", u ? attr(u, L"title") : L"");
        add_str(e, L"Description", L"");
        add_str(e, L"ClientApplicationID", L"");
        add_long(e, L"ServerSelection", 3);
        add_str(e, L"ServiceID", L"");
        add_str(e, L"SupportUrl", L"");
        push_obj(c, e);
    }
    ret_obj(ret, c);
    return S_OK;
}

static HRESULT searcher_escape(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    return n == 1 ? VariantCopy(ret, &a[0]) : E_INVALIDARG;
}

static const MethodDef searcher_methods[] = {
    {L"Search", searcher_search}, {L"GetTotalHistoryCount", searcher_count}, {L"QueryHistory", searcher_history},
    {L"EscapeString", searcher_escape}, {0},
};

Obj *new_searcher(void)
{
    Obj *o = new_obj(searcher_methods);
    add_long(o, L"ServerSelection", 0)->rw = TRUE;
    add_str(o, L"ServiceID", L"00000000-0000-0000-0000-000000000000")->rw = TRUE;
    add_bool(o, L"Online", TRUE)->rw = TRUE;
    add_bool(o, L"IncludePotentiallySupersededUpdates", FALSE)->rw = TRUE;
    add_bool(o, L"CanAutomaticallyUpgradeService", TRUE)->rw = TRUE;
    add_bool(o, L"IgnoreDownloadPriority", FALSE)->rw = TRUE;
    add_long(o, L"SearchScope", 0)->rw = TRUE;
    add_str(o, L"ClientApplicationID", L"")->rw = TRUE;
    return o;
}
