/*
 * A double of the Windows Update Agent's COM API: in-process, late-bound, and
 * with an update catalogue that a test writes. It lets the agent's own binary
 * run under Wine, whose wuapi.dll answers E_NOTIMPL to everything.
 *
 * It registers the real CLSIDs and ProgIDs and answers IDispatch only
 * (GetIDsOfNames and Invoke; no type library, no dual vtables), which is all
 * that go-ole asks for. It reports failures as oleaut32's typelib dispatcher
 * does: DISP_E_EXCEPTION with the real HRESULT in EXCEPINFO.scode.
 *
 * Everything lives in one directory (HKLM\Software\WuaDouble "Dir", or the
 * environment's WUADOUBLE_DIR):
 *   catalog.txt  what can be found          (written by the test)
 *   state.txt    installed, copied, hidden… (appended here; survives)
 *   calls.log    one line per notable call  (read by the test)
 */
#ifndef DOUBLE_H
#define DOUBLE_H

#define COBJMACROS
#include <windows.h>
#include <oleauto.h>
#include <olectl.h>
#include <wincrypt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define WU_E_INVALIDINDEX          ((HRESULT)0x80240007)
#define WU_E_ALL_UPDATES_FAILED    ((HRESULT)0x80240022)
#define WU_E_EULAS_DECLINED        ((HRESULT)0x80240023)
#define WU_E_NO_UPDATE             ((HRESULT)0x80240024)
#define WU_E_INVALID_CRITERIA      ((HRESULT)0x80240032)
#define WU_E_UH_NEEDANOTHERDOWNLOAD ((HRESULT)0x8024200D)
#define WU_E_DM_INCORRECTFILEHASH  ((HRESULT)0x80246002)
#define WU_E_DM_NOTDOWNLOADED      ((HRESULT)0x80246007)
#define WU_E_OL_INVALID_SCANFILE   ((HRESULT)0x80247001)
#define WU_E_DS_UNKNOWNSERVICE     ((HRESULT)0x80248014)
#define WU_E_NAME_NOT_RESOLVED     ((HRESULT)0x8024402C)
#define WU_S_UPDATE_ERROR          ((HRESULT)0x00240003)

/* The world: world.c. */

typedef struct Update Update;

typedef struct { WCHAR *key, *val; } Attr;
typedef struct { WCHAR *url; LONGLONG size; char sha1[41]; BOOL copied, delta; } File;
struct Update {
    WCHAR id[40];
    LONG rev;
    Attr *attrs; int nattrs;
    File *files; int nfiles;
    Update **kids; int nkids;
    BOOL installed, pending, hidden, eula;
};
typedef struct { WCHAR id[40]; LONG rev, result, hr; DATE when; } History;
typedef struct { WCHAR op[32]; HRESULT hr; LONG left; } Fault;
typedef struct { WCHAR id[40]; WCHAR name[128]; WCHAR path[MAX_PATH]; } Scan;

extern WCHAR dir[MAX_PATH];
extern Update **updates; extern int nupdates;
extern History *history; extern int nhistory;
extern Scan scans[16]; extern int nscans;
extern BOOL reboot_required;
extern LONG search_ms;

#define GROW(arr, n) ((arr) = realloc((arr), ((n) + 1) * sizeof *(arr)), &(arr)[(n)++])
WCHAR *dup(const WCHAR *s);
void append(const WCHAR *file, const WCHAR *fmt, ...);
#define LOG(...) append(L"calls.log", __VA_ARGS__)
const WCHAR *attr(const Update *u, const WCHAR *key);
LONG num(const Update *u, const WCHAR *key, LONG dflt);
Update *find_in(Update **list, int n, const WCHAR *id, LONG rev);
const WCHAR *basename_of(const WCHAR *path);
void load_state(void);
HRESULT fault(const WCHAR *op);
HRESULT need_service(void);

/* Objects and collections: object.c. */

typedef struct Obj Obj;
typedef HRESULT (*Method)(Obj *, VARIANT *args, UINT n, WORD flags, VARIANT *ret);
typedef struct { const WCHAR *name; Method fn; } MethodDef;
typedef struct { WCHAR *name; VARIANT v; BOOL rw; } Prop;

struct Obj {
    const IDispatchVtbl *lpVtbl;
    LONG ref;
    const MethodDef *methods;       /* behaviour */
    Prop *props; int nprops;        /* plain properties */
    VARIANT *items; int nitems;     /* collection content */
    BOOL collection, readonly;
    Update *update;
};

extern LONG live_objects;
extern CRITICAL_SECTION lock;
extern const IDispatchVtbl obj_vtbl;

HRESULT WINAPI obj_qi(IDispatch *i, REFIID iid, void **out);
ULONG WINAPI obj_release(IDispatch *i);
Obj *new_obj(const MethodDef *methods);
Obj *new_collection(BOOL readonly);
void push_obj(Obj *c, Obj *item);               /* takes over the reference */
void push_str(Obj *c, const WCHAR *s);
Prop *add_prop(Obj *o, const WCHAR *name, VARTYPE vt);
Prop *add_str(Obj *o, const WCHAR *name, const WCHAR *s);
Prop *add_long(Obj *o, const WCHAR *name, LONG v);
Prop *add_bool(Obj *o, const WCHAR *name, BOOL v);
Prop *add_date(Obj *o, const WCHAR *name, DATE v);
Prop *add_obj(Obj *o, const WCHAR *name, Obj *child);
VARIANT *prop(Obj *o, const WCHAR *name);
void ret_obj(VARIANT *ret, Obj *o);
void ret_bool(VARIANT *ret, BOOL b);
void ret_long(VARIANT *ret, LONG l);
void ret_str(VARIANT *ret, const WCHAR *s);

/* What there is to make. */

void init_update_methods(void);                 /* update.c */
Obj *wrap_update(Update *u);
BOOL downloaded(const Update *u);
DATE now(void);
Obj *new_searcher(void);                        /* search.c */
Obj *new_installer(void);                       /* install.c */
Obj *new_downloader(void);
Obj *new_manager(void);                         /* session.c */
Obj *new_session(void);
Obj *new_sysinfo(void);
Obj *new_agentinfo(void);
Obj *new_coll(void);

#endif
