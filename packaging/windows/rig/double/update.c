/* IUpdate and its parts. */
#include "double.h"

BOOL downloaded(const Update *u)
{
    for (int i = 0; i < u->nfiles; i++) if (!u->files[i].copied && !u->files[i].delta) return FALSE;
    for (int i = 0; i < u->nkids; i++) if (!downloaded(u->kids[i])) return FALSE;
    return TRUE;
}

DATE now(void)
{
    SYSTEMTIME st;
    DATE d = 0;
    GetSystemTime(&st);
    SystemTimeToVariantTime(&st, &d);
    return d;
}

static HRESULT check_sha1(const WCHAR *path, const char *want)
{
    HCRYPTPROV prov = 0;
    HCRYPTHASH hash = 0;
    BYTE buf[65536], sum[20];
    DWORD n, len = sizeof sum;
    char hex[41];
    HANDLE h = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);

    if (h == INVALID_HANDLE_VALUE) return HRESULT_FROM_WIN32(GetLastError());
    CryptAcquireContextW(&prov, NULL, NULL, PROV_RSA_FULL, CRYPT_VERIFYCONTEXT);
    CryptCreateHash(prov, CALG_SHA1, 0, 0, &hash);
    while (ReadFile(h, buf, sizeof buf, &n, NULL) && n) CryptHashData(hash, buf, n, 0);
    CryptGetHashParam(hash, HP_HASHVAL, sum, &len, 0);
    CryptDestroyHash(hash);
    CryptReleaseContext(prov, 0);
    CloseHandle(h);
    for (int i = 0; i < 20; i++) sprintf(hex + 2 * i, "%02x", sum[i]);
    return !*want || !_stricmp(hex, want) ? S_OK : WU_E_DM_INCORRECTFILEHASH;
}

static HRESULT update_copytocache(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    Update *u = o->update;
    Obj *c;
    HRESULT hr = fault(L"CopyToCache");

    if (FAILED(hr)) return hr;
    if (FAILED(hr = (HRESULT)num(u, L"copyresult", 0))) return hr;      /* it takes nothing, whatever is given */
    if (n != 1 || V_VT(&a[0]) != VT_DISPATCH || !V_DISPATCH(&a[0])) return E_INVALIDARG;
    c = (Obj *)V_DISPATCH(&a[0]);
    if (c->lpVtbl != &obj_vtbl || !c->collection || !c->nitems) return E_INVALIDARG;
    if (FAILED(hr = need_service())) return hr;
    for (int i = 0; i < c->nitems; i++) {
        const WCHAR *path = V_VT(&c->items[i]) == VT_BSTR ? V_BSTR(&c->items[i]) : L"";
        File *f = NULL;
        for (int k = 0; k < u->nfiles; k++)
            if (!_wcsicmp(basename_of(u->files[k].url), basename_of(path))) f = &u->files[k];
        hr = path[0] && path[1] == ':' ? S_OK : E_INVALIDARG;            /* full local paths only */
        if (SUCCEEDED(hr) && !f) hr = E_INVALIDARG;
        if (SUCCEEDED(hr)) hr = check_sha1(path, f->sha1);
        LOG(L"CopyToCache %ls %ld %ls 0x%08lX", u->id, u->rev, path, hr);
        if (FAILED(hr)) return hr;
        f->copied = TRUE;
        append(L"state.txt", L"copied %ls %ld %ls", u->id, u->rev, basename_of(path));
    }
    return S_OK;
}

static HRESULT update_accepteula(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    o->update->eula = TRUE;
    append(L"state.txt", L"eula %ls %ld", o->update->id, o->update->rev);
    LOG(L"AcceptEula %ls", o->update->id);
    return S_OK;
}

static HRESULT update_hidden(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    if (flags & DISPATCH_PROPERTYPUT) {
        VARIANT v;
        VariantInit(&v);
        if (n != 1 || FAILED(VariantChangeType(&v, a, 0, VT_BOOL))) return DISP_E_TYPEMISMATCH;
        o->update->hidden = V_BOOL(&v) != 0;
        append(L"state.txt", L"hidden %ls %ld %d", o->update->id, o->update->rev, o->update->hidden);
        return S_OK;
    }
    ret_bool(ret, o->update->hidden);
    return S_OK;
}
static HRESULT update_installed(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret) { ret_bool(ret, o->update->installed); return S_OK; }
static HRESULT update_downloaded(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret) { ret_bool(ret, downloaded(o->update)); return S_OK; }
static HRESULT update_eula(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret) { ret_bool(ret, o->update->eula); return S_OK; }
static HRESULT update_reboot(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret) { ret_bool(ret, o->update->pending); return S_OK; }

static HRESULT update_identity(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    Obj *i = new_obj(NULL);
    add_str(i, L"UpdateID", o->update->id);
    add_long(i, L"RevisionNumber", o->update->rev);
    ret_obj(ret, i);
    return S_OK;
}

/* "category Product GUID Windows 11" */
static HRESULT update_categories(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    Obj *c = new_collection(TRUE);
    for (int k = 0; k < o->update->nattrs; k++) {
        WCHAR type[64] = L"", id[64] = L"", name[256] = L"";
        Obj *cat;
        if (wcscmp(o->update->attrs[k].key, L"category")) continue;
        swscanf(o->update->attrs[k].val, L"%63ls %63ls %255l[^\n]", type, id, name);
        cat = new_obj(NULL);
        add_str(cat, L"Name", name);
        add_str(cat, L"CategoryID", id);
        add_str(cat, L"Type", type);
        add_str(cat, L"Description", name);
        add_long(cat, L"Order", 0);
        push_obj(c, cat);
    }
    ret_obj(ret, c);
    return S_OK;
}

static HRESULT update_contents(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    Obj *c = new_collection(TRUE);
    for (int k = 0; k < o->update->nfiles; k++) {
        Obj *f = new_obj(NULL);
        add_str(f, L"DownloadUrl", o->update->files[k].url);
        add_bool(f, L"IsDeltaCompressedContent", o->update->files[k].delta);
        push_obj(c, f);
    }
    ret_obj(ret, c);
    return S_OK;
}

static HRESULT update_bundled(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    Obj *c = new_collection(TRUE);
    for (int k = 0; k < o->update->nkids; k++) push_obj(c, wrap_update(o->update->kids[k]));
    ret_obj(ret, c);
    return S_OK;
}

static HRESULT update_behavior(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    Obj *b = new_obj(NULL);
    add_bool(b, L"CanRequestUserInput", num(o->update, L"userinput", 0));
    add_long(b, L"Impact", num(o->update, L"impact", 0));
    add_long(b, L"RebootBehavior", num(o->update, L"reboot", 0));
    add_bool(b, L"RequiresNetworkConnectivity", 0);
    ret_obj(ret, b);
    return S_OK;
}

/* attribute-backed properties */
enum { K_STR, K_LIST, K_BOOL, K_LONG, K_DEC, K_DATE };
static const struct { const WCHAR *name, *key; int kind; } update_attrs[] = {
    {L"Title", L"title", K_STR}, {L"Description", L"description", K_STR}, {L"MsrcSeverity", L"severity", K_STR},
    {L"SupportUrl", L"support", K_STR}, {L"ReleaseNotes", L"notes", K_STR}, {L"EulaText", L"eulatext", K_STR},
    {L"UninstallationNotes", L"unnotes", K_STR},
    {L"KBArticleIDs", L"kb", K_LIST}, {L"SecurityBulletinIDs", L"bulletin", K_LIST}, {L"CveIDs", L"cve", K_LIST},
    {L"SupersededUpdateIDs", L"supersedes", K_LIST}, {L"MoreInfoUrls", L"moreinfo", K_LIST},
    {L"Languages", L"language", K_LIST}, {L"UninstallationSteps", L"unstep", K_LIST},
    {L"IsMandatory", L"mandatory", K_BOOL}, {L"IsBeta", L"beta", K_BOOL}, {L"IsUninstallable", L"uninstallable", K_BOOL},
    {L"AutoSelectOnWebSites", L"autoselect", K_BOOL}, {L"BrowseOnly", L"browseonly", K_BOOL}, {L"PerUser", L"peruser", K_BOOL},
    {L"CanRequireSource", L"source", K_BOOL}, {L"DeltaCompressedContentAvailable", L"delta", K_BOOL},
    {L"DeltaCompressedContentPreferred", L"deltapref", K_BOOL},
    {L"DeploymentAction", L"action", K_LONG}, {L"DownloadPriority", L"priority", K_LONG},
    {L"RecommendedMemory", L"memory", K_LONG}, {L"RecommendedCpuSpeed", L"cpu", K_LONG}, {L"RecommendedHardDiskSpace", L"disk", K_LONG},
    {L"MinDownloadSize", L"minsize", K_DEC}, {L"MaxDownloadSize", L"maxsize", K_DEC},
    {L"LastDeploymentChangeTime", L"changed", K_DATE}, {L"Deadline", L"deadline", K_DATE},
};

static HRESULT update_attr(Obj *o, int k, VARIANT *ret)
{
    Update *u = o->update;
    const WCHAR *v = attr(u, update_attrs[k].key);
    switch (update_attrs[k].kind) {
    case K_STR: ret_str(ret, v); break;
    case K_BOOL: ret_bool(ret, v && v[0] != '0'); break;
    case K_LONG: ret_long(ret, v ? wcstol(v, NULL, 0) : 0); break;
    case K_DEC:
        memset(ret, 0, sizeof *ret);
        V_DECIMAL(ret).Lo64 = v ? _wcstoui64(v, NULL, 10) : 0;
        V_VT(ret) = VT_DECIMAL;
        break;
    case K_DATE: {
        SYSTEMTIME st = {0};
        if (!v) break;                                       /* VT_EMPTY: no deadline */
        swscanf(v, L"%hu-%hu-%huT%hu:%hu:%hu", &st.wYear, &st.wMonth, &st.wDay, &st.wHour, &st.wMinute, &st.wSecond);
        V_VT(ret) = VT_DATE;
        SystemTimeToVariantTime(&st, &V_DATE(ret));
        break;
    }
    case K_LIST: {
        Obj *c = new_collection(TRUE);
        for (int i = 0; i < u->nattrs; i++)
            if (!wcscmp(u->attrs[i].key, update_attrs[k].key)) push_str(c, u->attrs[i].val);
        ret_obj(ret, c);
    }
    }
    return S_OK;
}
#define A(n) static HRESULT update_a##n(Obj *o, VARIANT *a, UINT c, WORD f, VARIANT *ret) { return update_attr(o, n, ret); }
A(0) A(1) A(2) A(3) A(4) A(5) A(6) A(7) A(8) A(9) A(10) A(11) A(12) A(13) A(14) A(15)
A(16) A(17) A(18) A(19) A(20) A(21) A(22) A(23) A(24) A(25) A(26) A(27) A(28) A(29) A(30) A(31)
#undef A

static HRESULT update_type(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret)
{
    const WCHAR *t = attr(o->update, L"type");
    ret_long(ret, t && !_wcsicmp(t, L"driver") ? 2 : 1);
    return S_OK;
}

static MethodDef update_methods[64] = {
    {L"Identity", update_identity}, {L"Categories", update_categories}, {L"DownloadContents", update_contents},
    {L"BundledUpdates", update_bundled}, {L"InstallationBehavior", update_behavior}, {L"Type", update_type},
    {L"IsInstalled", update_installed}, {L"IsPresent", update_installed}, {L"IsDownloaded", update_downloaded},
    {L"IsHidden", update_hidden}, {L"EulaAccepted", update_eula}, {L"RebootRequired", update_reboot},
    {L"AcceptEula", update_accepteula}, {L"CopyToCache", update_copytocache},
};

void init_update_methods(void)
{
    static const Method fns[] = {
        update_a0, update_a1, update_a2, update_a3, update_a4, update_a5, update_a6, update_a7,
        update_a8, update_a9, update_a10, update_a11, update_a12, update_a13, update_a14, update_a15,
        update_a16, update_a17, update_a18, update_a19, update_a20, update_a21, update_a22, update_a23,
        update_a24, update_a25, update_a26, update_a27, update_a28, update_a29, update_a30, update_a31,
    };
    int n = 0;
    while (update_methods[n].name) n++;
    for (size_t k = 0; k < ARRAYSIZE(update_attrs); k++, n++) {
        update_methods[n].name = update_attrs[k].name;
        update_methods[n].fn = fns[k];
    }
}

Obj *wrap_update(Update *u)
{
    Obj *o = new_obj(update_methods);
    o->update = u;
    return o;
}
