/* The service manager, the session, and what says how Windows is. */
#include "double.h"

static Obj *wrap_scan(const Scan *s)
{
    Obj *o = new_obj(NULL);
    add_str(o, L"ServiceID", s->id);
    add_str(o, L"Name", s->name);
    add_bool(o, L"IsScanPackageService", TRUE);
    add_bool(o, L"IsManaged", FALSE);
    add_bool(o, L"IsRegisteredWithAU", FALSE);
    add_bool(o, L"OffersWindowsUpdates", TRUE);
    add_bool(o, L"CanRegisterWithAU", FALSE);
    return o;
}

static HRESULT manager_addscan(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    Scan *s;
    GUID g;
    HANDLE h;
    char magic[4] = {0};
    DWORD got;
    HRESULT hr;

    if (n < 2 || V_VT(&a[0]) != VT_BSTR || V_VT(&a[1]) != VT_BSTR) return E_INVALIDARG;
    load_state();
    if (FAILED(hr = need_service())) return hr;
    if (FAILED(hr = fault(L"AddScanPackageService"))) return hr;
    h = CreateFileW(V_BSTR(&a[1]), GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
    if (h == INVALID_HANDLE_VALUE) hr = HRESULT_FROM_WIN32(GetLastError());
    else {
        ReadFile(h, magic, 4, &got, NULL);
        CloseHandle(h);
        if (memcmp(magic, "MSCF", 4)) hr = WU_E_OL_INVALID_SCANFILE;
    }
    LOG(L"AddScanPackageService %ls %ls flags=%ld 0x%08lX", V_BSTR(&a[0]), V_BSTR(&a[1]), n > 2 ? V_I4(&a[2]) : 0, hr);
    if (FAILED(hr)) return hr;
    if (nscans == ARRAYSIZE(scans)) return (HRESULT)0x80240002;
    s = &scans[nscans++];
    CoCreateGuid(&g);
    swprintf(s->id, 40, L"%08lx-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", g.Data1, g.Data2, g.Data3, g.Data4[0],
             g.Data4[1], g.Data4[2], g.Data4[3], g.Data4[4], g.Data4[5], g.Data4[6], g.Data4[7]);
    lstrcpynW(s->name, V_BSTR(&a[0]), ARRAYSIZE(s->name));
    lstrcpynW(s->path, V_BSTR(&a[1]), ARRAYSIZE(s->path));
    ret_obj(ret, wrap_scan(s));
    return S_OK;
}

static HRESULT manager_remove(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    if (n != 1 || V_VT(&a[0]) != VT_BSTR) return E_INVALIDARG;
    for (int i = 0; i < nscans; i++)
        if (!_wcsicmp(scans[i].id, V_BSTR(&a[0]))) {
            scans[i] = scans[--nscans];
            LOG(L"RemoveService ok");
            return S_OK;
        }
    return WU_E_DS_UNKNOWNSERVICE;
}

static HRESULT manager_services(Obj *o, VARIANT *a, UINT n, WORD flags, VARIANT *ret)
{
    Obj *c = new_collection(TRUE);
    for (int i = 0; i < nscans; i++) push_obj(c, wrap_scan(&scans[i]));
    ret_obj(ret, c);
    return S_OK;
}

static const MethodDef manager_methods[] = {
    {L"AddScanPackageService", manager_addscan}, {L"RemoveService", manager_remove}, {L"Services", manager_services}, {0},
};
Obj *new_manager(void)
{
    Obj *o = new_obj(manager_methods);
    add_str(o, L"ClientApplicationID", L"")->rw = TRUE;
    return o;
}

static HRESULT session_searcher(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret) { ret_obj(ret, new_searcher()); return S_OK; }
static HRESULT session_installer(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret) { ret_obj(ret, new_installer()); return S_OK; }
static HRESULT session_downloader(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret) { ret_obj(ret, new_downloader()); return S_OK; }
static HRESULT session_manager(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret) { ret_obj(ret, new_manager()); return S_OK; }
static const MethodDef session_methods[] = {
    {L"CreateUpdateSearcher", session_searcher}, {L"CreateUpdateInstaller", session_installer},
    {L"CreateUpdateDownloader", session_downloader}, {L"CreateUpdateServiceManager", session_manager}, {0},
};
Obj *new_session(void)
{
    Obj *o = new_obj(session_methods);
    add_str(o, L"ClientApplicationID", L"")->rw = TRUE;
    add_long(o, L"UserLocale", 1033)->rw = TRUE;
    add_bool(o, L"ReadOnly", FALSE);
    return o;
}

static HRESULT sysinfo_reboot(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret)
{
    load_state();
    ret_bool(ret, reboot_required);
    return S_OK;
}
static const MethodDef sysinfo_methods[] = {{L"RebootRequired", sysinfo_reboot}, {0}};
Obj *new_sysinfo(void) { Obj *o = new_obj(sysinfo_methods); add_str(o, L"OemHardwareSupportLink", L""); return o; }

/* GetInfo("LiveObjects") is the leak check: objects alive, this one excluded */
static HRESULT agentinfo_get(Obj *o, VARIANT *a, UINT n, WORD f, VARIANT *ret)
{
    if (n != 1 || V_VT(&a[0]) != VT_BSTR) return E_INVALIDARG;
    if (!_wcsicmp(V_BSTR(&a[0]), L"LiveObjects")) { ret_long(ret, live_objects - 1); return S_OK; }
    if (!_wcsicmp(V_BSTR(&a[0]), L"ProductVersionString")) { ret_str(ret, L"10.0.19041.4170"); return S_OK; }
    if (!_wcsicmp(V_BSTR(&a[0]), L"ApiMajorVersion")) { ret_long(ret, 8); return S_OK; }
    if (!_wcsicmp(V_BSTR(&a[0]), L"ApiMinorVersion")) { ret_long(ret, 0); return S_OK; }
    return E_INVALIDARG;
}
static const MethodDef agentinfo_methods[] = {{L"GetInfo", agentinfo_get}, {0}};
Obj *new_agentinfo(void) { return new_obj(agentinfo_methods); }
Obj *new_coll(void) { return new_collection(FALSE); }
