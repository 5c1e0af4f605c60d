/* The class factory and the registration. */
#define INITGUID
#include "double.h"

static HINSTANCE instance;

static const struct { const WCHAR *clsid, *progid; Obj *(*make)(void); } classes[] = {
    {L"{4CB43D7F-7EEE-4906-8698-60DA1C38F2FE}", L"Microsoft.Update.Session", new_session},
    {L"{F8D253D9-89A4-4DAA-87B6-1168369F0B21}", L"Microsoft.Update.ServiceManager", new_manager},
    {L"{B699E5E8-67FF-4177-88B0-3684A3388BFB}", L"Microsoft.Update.Searcher", new_searcher},
    {L"{13639463-00DB-4646-803D-528026140D88}", L"Microsoft.Update.UpdateColl", new_coll},
    {L"{72C97D74-7C3B-40AE-B77D-ABDB22EBA6FB}", L"Microsoft.Update.StringColl", new_coll},
    {L"{5BAF654A-5A07-4264-A255-9FF54C7151E7}", L"Microsoft.Update.Downloader", new_downloader},
    {L"{D2E0FE7F-D23E-48E1-93C0-6FA8CC346474}", L"Microsoft.Update.Installer", new_installer},
    {L"{C01B9BA0-BEA7-41BA-B604-D0A36F469133}", L"Microsoft.Update.SystemInfo", new_sysinfo},
    {L"{C2E88C2F-6F5B-4AAA-894B-55C847AD3A2D}", L"Microsoft.Update.AgentInfo", new_agentinfo},
};

typedef struct { const IClassFactoryVtbl *lpVtbl; Obj *(*make)(void); } Factory;

static HRESULT WINAPI factory_qi(IClassFactory *i, REFIID iid, void **out)
{
    if (IsEqualGUID(iid, &IID_IUnknown) || IsEqualGUID(iid, &IID_IClassFactory)) { *out = i; return S_OK; }
    *out = NULL;
    return E_NOINTERFACE;
}
static ULONG WINAPI factory_ref(IClassFactory *i) { return 2; }
static HRESULT WINAPI factory_create(IClassFactory *i, IUnknown *outer, REFIID iid, void **out)
{
    Obj *o;
    HRESULT hr;
    *out = NULL;
    if (outer) return CLASS_E_NOAGGREGATION;
    o = ((Factory *)i)->make();
    hr = obj_qi((IDispatch *)o, iid, out);
    obj_release((IDispatch *)o);
    return hr;
}
static HRESULT WINAPI factory_lock(IClassFactory *i, BOOL l) { return S_OK; }
static const IClassFactoryVtbl factory_vtbl = {factory_qi, factory_ref, factory_ref, factory_create, factory_lock};
static Factory factories[ARRAYSIZE(classes)];

HRESULT WINAPI DllGetClassObject(REFCLSID clsid, REFIID iid, void **out)
{
    for (size_t k = 0; k < ARRAYSIZE(classes); k++) {
        CLSID c;
        CLSIDFromString(classes[k].clsid, &c);
        if (!IsEqualGUID(&c, clsid)) continue;
        factories[k].lpVtbl = &factory_vtbl;
        factories[k].make = classes[k].make;
        return factory_qi((IClassFactory *)&factories[k], iid, out);
    }
    *out = NULL;
    return CLASS_E_CLASSNOTAVAILABLE;
}

HRESULT WINAPI DllCanUnloadNow(void) { return S_FALSE; }

static void set(const WCHAR *key, const WCHAR *name, const WCHAR *value)
{
    HKEY h;
    WCHAR path[256];
    _snwprintf(path, 255, L"Software\\Classes\\%ls", key);
    if (RegCreateKeyExW(HKEY_LOCAL_MACHINE, path, 0, NULL, 0, KEY_WRITE, NULL, &h, NULL)) return;
    RegSetValueExW(h, name, 0, REG_SZ, (const BYTE *)value, (wcslen(value) + 1) * sizeof *value);
    RegCloseKey(h);
}

HRESULT WINAPI DllRegisterServer(void)
{
    WCHAR self[MAX_PATH], key[256];
    GetModuleFileNameW(instance, self, MAX_PATH);
    for (size_t k = 0; k < ARRAYSIZE(classes); k++) {
        swprintf(key, 256, L"CLSID\\%ls\\InprocServer32", classes[k].clsid);
        set(key, NULL, self);
        set(key, L"ThreadingModel", L"Both");
        swprintf(key, 256, L"CLSID\\%ls\\ProgID", classes[k].clsid);
        set(key, NULL, classes[k].progid);
        swprintf(key, 256, L"%ls\\CLSID", classes[k].progid);
        set(key, NULL, classes[k].clsid);
    }
    return S_OK;
}

BOOL WINAPI DllMain(HINSTANCE h, DWORD why, void *reserved)
{
    if (why == DLL_PROCESS_ATTACH) {
        DWORD n = sizeof dir;
        instance = h;
        DisableThreadLibraryCalls(h);
        InitializeCriticalSection(&lock);
        init_update_methods();
        if (!GetEnvironmentVariableW(L"WUADOUBLE_DIR", dir, MAX_PATH) &&
            RegGetValueW(HKEY_LOCAL_MACHINE, L"Software\\WuaDouble", L"Dir", RRF_RT_REG_SZ, NULL, dir, &n))
            wcscpy(dir, L"C:\\wuadouble");
    }
    return TRUE;
}
