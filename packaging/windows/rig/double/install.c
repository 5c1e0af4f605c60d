/* IUpdateInstaller, and the downloader that nobody may use. */
#include "double.h"

/* "needsdelta 1": the full files alone do not do */
static BOOL lacks_delta(const Update *u)
{
    for (int i = 0; i < u->nfiles && num(u, L"needsdelta", 0); i++)
        if (u->files[i].delta && !u->files[i].copied) return TRUE;
    for (int i = 0; i < u->nkids; i++) if (lacks_delta(u->kids[i])) return TRUE;
    return FALSE;
}

static HRESULT install_one(Update *u, BOOL *reboot)
{
    HRESULT hr = (HRESULT)num(u, L"installresult", 0);
    LONG behavior = num(u, L"reboot", 0);

    Sleep(num(u, L"installms", 0));
    if (!u->eula) hr = WU_E_EULAS_DECLINED;
    else if (!downloaded(u)) hr = WU_E_DM_NOTDOWNLOADED;
    else if (lacks_delta(u)) hr = WU_E_UH_NEEDANOTHERDOWNLOAD;
    *reboot = SUCCEEDED(hr) && (behavior == 1 || (behavior == 2 && num(u, L"rebootneeded", 0)));
    if (SUCCEEDED(hr)) {
        if (*reboot) u->pending = reboot_required = TRUE; else u->installed = TRUE;
        append(L"state.txt", L"%ls %ls %ld", *reboot ? L"pending" : L"installed", u->id, u->rev);
    }
    append(L"state.txt", L"history %ls %ld %d %ld %f", u->id, u->rev, SUCCEEDED(hr) ? 2 : 4, (LONG)hr, now());
    LOG(L"Install %ls %ld 0x%08lX reboot=%d", u->id, u->rev, hr, *reboot);
    return hr;
}

static HRESULT installer_install(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    VARIANT *v = prop(o, L"Updates");
    Obj *c = V_VT(v) == VT_DISPATCH ? (Obj *)V_DISPATCH(v) : NULL, *results, *res;
    int ok = 0;
    BOOL any_reboot = FALSE;
    HRESULT hr;

    if (!c || !c->collection || !c->nitems) return WU_E_NO_UPDATE;
    if (FAILED(hr = need_service())) return hr;
    if (FAILED(hr = fault(L"Install"))) return hr;
    results = new_collection(TRUE);
    for (int i = 0; i < c->nitems; i++) {
        Obj *u = (Obj *)V_DISPATCH(&c->items[i]), *r = new_obj(NULL);
        BOOL reboot = FALSE;
        hr = install_one(u->update, &reboot);
        ok += SUCCEEDED(hr);
        any_reboot |= reboot;
        add_long(r, L"ResultCode", SUCCEEDED(hr) ? 2 : 4);
        add_long(r, L"HResult", hr);
        add_bool(r, L"RebootRequired", reboot);
        push_obj(results, r);
    }
    res = new_obj(NULL);
    add_long(res, L"ResultCode", ok == c->nitems ? 2 : ok ? 3 : 4);
    add_long(res, L"HResult", ok == c->nitems ? S_OK : ok ? WU_S_UPDATE_ERROR : WU_E_ALL_UPDATES_FAILED);
    add_bool(res, L"RebootRequired", any_reboot);
    add_obj(res, L"GetUpdateResult", results);
    ret_obj(ret, res);
    return S_OK;
}

static HRESULT installer_busy(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret) { ret_bool(ret, FALSE); return S_OK; }
static HRESULT installer_rebootbefore(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret)
{
    load_state();
    ret_bool(ret, reboot_required);
    return S_OK;
}

static const MethodDef installer_methods[] = {
    {L"Install", installer_install}, {L"IsBusy", installer_busy},
    {L"RebootRequiredBeforeInstallation", installer_rebootbefore}, {0},
};

Obj *new_installer(void)
{
    Obj *o = new_obj(installer_methods);
    add_prop(o, L"Updates", VT_EMPTY)->rw = TRUE;
    add_bool(o, L"IsForced", FALSE)->rw = TRUE;
    add_bool(o, L"ForceQuiet", FALSE)->rw = TRUE;
    add_bool(o, L"AllowSourcePrompts", TRUE)->rw = TRUE;
    add_bool(o, L"AttemptCloseAppsIfNecessary", FALSE)->rw = TRUE;
    add_str(o, L"ClientApplicationID", L"")->rw = TRUE;
    return o;
}

static HRESULT downloader_download(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret)
{
    LOG(L"Download refused: the agent must use CopyToCache");
    return WU_E_NAME_NOT_RESOLVED;
}
static const MethodDef downloader_methods[] = {{L"Download", downloader_download}, {0}};
Obj *new_downloader(void)
{
    Obj *o = new_obj(downloader_methods);
    add_prop(o, L"Updates", VT_EMPTY)->rw = TRUE;
    add_str(o, L"ClientApplicationID", L"")->rw = TRUE;
    return o;
}
