/* SPDX-License-Identifier: Apache-2.0
 *
 * A stand-in for libnvidia-ml.so.1: lets the real nvidia-ml-py read the simulated GPUs of a host that has none.
 *
 * The GPUs come from a text file that make_sysfs.py writes: $SIMULATED_GPUS, else nvml.txt beside this library, else
 * /srv/simulated_gpu/nvml.txt.
 * Lines of it:  driver VERSION | cuda NUMBER | fault NAME | gpu key=value ... name=TEXT TO THE END OF THE LINE
 * No "driver" line means that no driver is loaded. A value "-" means that the product does not support the question.
 * A fault is what a broken driver does when it is started: hang (it never answers), mismatch (the library is of another
 * version than the kernel module), lost (a GPU has fallen off the bus), unknown. A gpu with lost=1 is lost alone.
 * Whatever the file says, a name contains "Simulated" and the driver's version "simulated".
 *
 * Build: cc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml_stub.c
 * Only functions that every glibc has are used (no strtol, no scanf: newer headers rename them), so that a library
 * built on a new machine loads on an older host. Functions that NVML has and this file lacks make nvidia-ml-py raise
 * NVMLError_FunctionNotFound, as an old driver does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
    MISMATCH = 18,
    ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN = 999
};
enum { MAX_GPUS = 64, MAX_LINKS = 36, ADDRESS = 32, NAME = 96, VERSION = 80, LIST = 2560, LINE = 8192 };
enum { DEVICE_TYPE_GPU = 0, DEVICE_TYPE_SWITCH = 2 };
enum { MAX_PROCESSES = 16, GENERATION = 0, GENERATION_MAXIMUM, GENERATION_PRODUCT, WIDTH, WIDTH_MAXIMUM, PCIE_ANSWERS };
enum { FABRIC_UUID = 16, FABRIC_VERSION_2 = 0x2000024 };
enum { P2P_NVLINK = 2, P2P_OK = 0, P2P_NOT_SUPPORTED = 5 };
enum { TOPOLOGY_NODE = 40, TOPOLOGY_SYSTEM = 50 };

typedef int nvml_return;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_info;
typedef struct { int type; char address[ADDRESS]; } nvlink;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } process_info;
typedef struct { unsigned pid; unsigned long long memory_mib; char name[NAME]; } process;
typedef struct {
    unsigned version;
    unsigned char cluster[FABRIC_UUID];
    nvml_return status;
    unsigned clique;
    unsigned char state;
    unsigned health;
} fabric_info;
typedef struct {
    int index, cc_major, cc_minor, mig, ecc, persistence, numa, link_count, lost;
    int ecc_errors[2], rows[4], pcie[PCIE_ANSWERS], fabric[2], process_count;
    process processes[MAX_PROCESSES];
    unsigned device_id, subsystem_id;
    unsigned long long memory_mib;
    char address[ADDRESS], uuid[NAME], name[NAME], peers[LIST];
    nvlink links[MAX_LINKS];
} device;

static device devices[MAX_GPUS];
static int gpu_count, initialised, cuda_version;
static char driver_version[VERSION], fault[NAME];

static int digit(char letter)
{
    if (letter >= '0' && letter <= '9') return letter - '0';
    if (letter >= 'a' && letter <= 'f') return letter - 'a' + 10;
    if (letter >= 'A' && letter <= 'F') return letter - 'A' + 10;
    return 16;
}

/* Read a number in the given base, stop at the first other letter; *end is set behind it unless NULL. */
static unsigned long long number(const char *text, unsigned base, const char **end)
{
    unsigned long long value = 0;
    while ((unsigned)digit(*text) < base) value = value * base + (unsigned)digit(*text++);
    if (end) *end = text;
    return value;
}

static int number_or(const char *text, int otherwise)
{
    return text[0] == '-' ? otherwise : (int)number(text, 10, NULL);
}

static void copy(char *to, size_t room, const char *from) { snprintf(to, room, "%s", from); }

static void parse_links(device *gpu, char *text)
{
    char *rest = NULL, *item;
    for (item = strtok_r(text, ",", &rest); item && gpu->link_count < MAX_LINKS; item = strtok_r(NULL, ",", &rest)) {
        char *slash = strchr(item, '/');
        if (!slash) continue;
        nvlink *link = &gpu->links[gpu->link_count++];
        link->type = strncmp(item, "switch", 6) == 0 ? DEVICE_TYPE_SWITCH : DEVICE_TYPE_GPU;
        copy(link->address, sizeof link->address, slash + 1);
    }
}

/* Read numbers that slashes separate; where there is none the product does not support the question. */
static void parse_numbers(int *out, int count, const char *text)
{
    for (int i = 0; i < count; i++) {
        out[i] = digit(*text) < 10 ? (int)number(text, 10, &text) : -1;
        while (*text && *text != '/') text++;
        if (*text) text++;
    }
}

/* PID:MIB:NAME, separated by commas; "-" is an unknown name. */
static void parse_processes(device *gpu, char *text)
{
    char *rest = NULL, *item;
    for (item = strtok_r(text, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        const char *end;
        if (gpu->process_count == MAX_PROCESSES) return;
        process *one = &gpu->processes[gpu->process_count++];
        one->pid = (unsigned)number(item, 10, &end);
        one->memory_mib = number(*end ? end + 1 : end, 10, &end);
        copy(one->name, sizeof one->name, *end ? end + 1 : end);
    }
}

static void parse_pair(device *gpu, const char *key, char *value)
{
    const char *end;
    if (!strcmp(key, "pci")) copy(gpu->address, sizeof gpu->address, value);
    else if (!strcmp(key, "device")) gpu->device_id = (unsigned)number(value, 16, NULL);
    else if (!strcmp(key, "subsystem")) gpu->subsystem_id = (unsigned)number(value, 16, NULL);
    else if (!strcmp(key, "uuid")) copy(gpu->uuid, sizeof gpu->uuid, value);
    else if (!strcmp(key, "memory")) gpu->memory_mib = value[0] == '-' ? 0 : number(value, 10, NULL);
    else if (!strcmp(key, "cc")) {
        gpu->cc_major = (int)number(value, 10, &end);
        gpu->cc_minor = *end == '.' ? (int)number(end + 1, 10, NULL) : 0;
    }
    else if (!strcmp(key, "mig")) gpu->mig = number_or(value, -1);
    else if (!strcmp(key, "ecc")) gpu->ecc = number_or(value, -1);
    else if (!strcmp(key, "persistence")) gpu->persistence = number_or(value, -1);
    else if (!strcmp(key, "numa")) gpu->numa = number_or(value, -1);
    else if (!strcmp(key, "peers")) copy(gpu->peers, sizeof gpu->peers, value);
    else if (!strcmp(key, "links")) parse_links(gpu, value);
    else if (!strcmp(key, "ecc_errors")) parse_numbers(gpu->ecc_errors, 2, value);
    else if (!strcmp(key, "rows")) parse_numbers(gpu->rows, 4, value);
    else if (!strcmp(key, "pcie")) parse_numbers(gpu->pcie, PCIE_ANSWERS, value);
    else if (!strcmp(key, "fabric")) parse_numbers(gpu->fabric, 2, value);
    else if (!strcmp(key, "processes")) parse_processes(gpu, value);
    else if (!strcmp(key, "lost")) gpu->lost = number_or(value, 0);
}

static void parse_gpu(char *text)
{
    if (gpu_count == MAX_GPUS) return;
    device *gpu = &devices[gpu_count];
    memset(gpu, 0, sizeof *gpu);
    gpu->index = gpu_count++;
    gpu->mig = gpu->ecc = gpu->persistence = gpu->numa = -1;
    parse_numbers(gpu->ecc_errors, 2, "");
    parse_numbers(gpu->rows, 4, "");
    parse_numbers(gpu->pcie, PCIE_ANSWERS, "");
    parse_numbers(gpu->fabric, 2, "");
    char *name = strstr(text, " name=");
    const char *label = name ? name + strlen(" name=") : "GPU";
    snprintf(gpu->name, sizeof gpu->name, "%s%s", strstr(label, "Simulated") ? "" : "Simulated ", label);
    if (name) *name = '\0';
    char *rest = NULL, *pair;
    for (pair = strtok_r(text, " ", &rest); pair; pair = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(pair, '=');
        if (!equals) continue;
        *equals = '\0';
        parse_pair(gpu, pair, equals + 1);
    }
}

/* Open nvml.txt in the directory that this library was loaded from, as the list of the process' mappings tells. */
static FILE *open_beside(void)
{
    static const char library[] = "/libnvidia-ml.so.1", text[] = "/nvml.txt";
    char line[LINE];
    FILE *file = NULL, *maps = fopen("/proc/self/maps", "r");
    while (maps && !file && fgets(line, sizeof line, maps)) {
        char *path = strchr(line, '/'), *name = path ? strstr(path, library) : NULL;
        if (!name) continue;
        copy(name, sizeof text, text);
        file = fopen(path, "r");
    }
    if (maps) fclose(maps);
    return file;
}

static FILE *open_description(void)
{
    const char *path = getenv("SIMULATED_GPUS");
    if (path) return fopen(path, "r");
    FILE *file = open_beside();
    return file ? file : fopen("/srv/simulated_gpu/nvml.txt", "r");
}

static void load(void)
{
    char line[LINE];
    gpu_count = cuda_version = 0;
    driver_version[0] = fault[0] = '\0';
    FILE *file = open_description();
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (!strncmp(line, "driver ", 7))
            snprintf(driver_version, sizeof driver_version, "%.60s%s", line + 7,
                     strstr(line, "simulated") ? "" : "-simulated");
        else if (!strncmp(line, "cuda ", 5)) cuda_version = (int)number(line + 5, 10, NULL);
        else if (!strncmp(line, "fault ", 6)) snprintf(fault, sizeof fault, "%.60s", line + 6);
        else if (!strncmp(line, "gpu ", 4)) parse_gpu(line + 4);
    }
    fclose(file);
}

nvml_return nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    load();
    if (!driver_version[0]) return DRIVER_NOT_LOADED;
    while (!strcmp(fault, "hang")) pause();
    if (!strcmp(fault, "mismatch")) return MISMATCH;
    if (!strcmp(fault, "lost")) return GPU_IS_LOST;
    if (fault[0]) return UNKNOWN;
    initialised = 1;
    return SUCCESS;
}

nvml_return nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

nvml_return nvmlShutdown(void)
{
    initialised = 0;
    return SUCCESS;
}

const char *nvmlErrorString(nvml_return result)
{
    switch (result) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

static nvml_return give_text(char *out, unsigned room, const char *text)
{
    if (!out) return INVALID_ARGUMENT;
    if (strlen(text) + 1 > room) return INSUFFICIENT_SIZE;
    copy(out, room, text);
    return SUCCESS;
}

static nvml_return give_int(int *out, int value)
{
    if (!out) return INVALID_ARGUMENT;
    if (value < 0) return NOT_SUPPORTED;
    *out = value;
    return SUCCESS;
}

nvml_return nvmlSystemGetDriverVersion(char *out, unsigned room)
{
    return initialised ? give_text(out, room, driver_version) : UNINITIALIZED;
}

nvml_return nvmlSystemGetCudaDriverVersion_v2(int *out) { return give_int(out, cuda_version ? cuda_version : -1); }
nvml_return nvmlSystemGetCudaDriverVersion(int *out) { return nvmlSystemGetCudaDriverVersion_v2(out); }

nvml_return nvmlDeviceGetCount_v2(unsigned *count)
{
    if (!initialised) return UNINITIALIZED;
    *count = (unsigned)gpu_count;
    return SUCCESS;
}

nvml_return nvmlDeviceGetHandleByIndex_v2(unsigned index, device **out)
{
    if (!initialised) return UNINITIALIZED;
    if (index >= (unsigned)gpu_count) return INVALID_ARGUMENT;
    if (devices[index].lost) return GPU_IS_LOST;
    *out = &devices[index];
    return SUCCESS;
}

nvml_return nvmlDeviceGetIndex(device *gpu, unsigned *out) { return give_int((int *)out, gpu->index); }
nvml_return nvmlDeviceGetName(device *gpu, char *out, unsigned room) { return give_text(out, room, gpu->name); }
nvml_return nvmlDeviceGetUUID(device *gpu, char *out, unsigned room) { return give_text(out, room, gpu->uuid); }

static void fill_pci(pci_info *out, const char *address)
{
    const char *rest;
    memset(out, 0, sizeof *out);
    out->domain = (unsigned)number(address, 16, &rest);
    out->bus = (unsigned)number(*rest ? rest + 1 : rest, 16, &rest);
    out->device = (unsigned)number(*rest ? rest + 1 : rest, 16, &rest);
    snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.0", out->domain, out->bus & 0xFF, out->device & 0xFF);
    snprintf(out->bus_id_legacy, sizeof out->bus_id_legacy, "%04X:%02X:%02X.0", out->domain & 0xFFFF, out->bus & 0xFF,
             out->device & 0xFF);
}

nvml_return nvmlDeviceGetPciInfo_v3(device *gpu, pci_info *out)
{
    if (!out) return INVALID_ARGUMENT;
    fill_pci(out, gpu->address);
    out->pci_device_id = gpu->device_id;
    out->pci_subsystem_id = gpu->subsystem_id;
    return SUCCESS;
}

nvml_return nvmlDeviceGetMemoryInfo(device *gpu, memory *out)
{
    if (!gpu->memory_mib) return NOT_SUPPORTED;
    out->total = gpu->memory_mib << 20;
    out->used = 0;
    out->free = out->total;
    return SUCCESS;
}

nvml_return nvmlDeviceGetCudaComputeCapability(device *gpu, int *major, int *minor)
{
    if (!gpu->cc_major) return NOT_SUPPORTED;
    *major = gpu->cc_major;
    *minor = gpu->cc_minor;
    return SUCCESS;
}

static nvml_return give_mode(int value, unsigned *current, unsigned *pending)
{
    if (value < 0) return NOT_SUPPORTED;
    *current = *pending = (unsigned)value;
    return SUCCESS;
}

nvml_return nvmlDeviceGetMigMode(device *gpu, unsigned *now, unsigned *next) { return give_mode(gpu->mig, now, next); }
nvml_return nvmlDeviceGetEccMode(device *gpu, unsigned *now, unsigned *next) { return give_mode(gpu->ecc, now, next); }
nvml_return nvmlDeviceGetPersistenceMode(device *gpu, unsigned *out) { return give_int((int *)out, gpu->persistence); }

nvml_return nvmlDeviceGetNvLinkState(device *gpu, unsigned link, unsigned *active)
{
    if (!gpu->link_count) return NOT_SUPPORTED;
    if (link >= (unsigned)gpu->link_count) return INVALID_ARGUMENT;
    *active = 1;
    return SUCCESS;
}

nvml_return nvmlDeviceGetNvLinkRemoteDeviceType(device *gpu, unsigned link, int *type)
{
    if (link >= (unsigned)gpu->link_count) return INVALID_ARGUMENT;
    *type = gpu->links[link].type;
    return SUCCESS;
}

nvml_return nvmlDeviceGetNvLinkRemotePciInfo_v2(device *gpu, unsigned link, pci_info *out)
{
    if (link >= (unsigned)gpu->link_count) return INVALID_ARGUMENT;
    fill_pci(out, gpu->links[link].address);
    return SUCCESS;
}

nvml_return nvmlDeviceGetTopologyCommonAncestor(device *one, device *other, int *level)
{
    *level = one->numa == other->numa ? TOPOLOGY_NODE : TOPOLOGY_SYSTEM;
    return SUCCESS;
}

nvml_return nvmlDeviceGetP2PStatus(device *one, device *other, int capability, int *status)
{
    int joined = strstr(one->peers, other->address) != NULL;
    *status = joined || capability != P2P_NVLINK ? P2P_OK : P2P_NOT_SUPPORTED;
    return SUCCESS;
}

nvml_return nvmlDeviceGetTotalEccErrors(device *gpu, int kind, int counter, unsigned long long *out)
{
    enum { UNCORRECTED = 1 };
    if (kind != UNCORRECTED || counter < 0 || counter > 1 || gpu->ecc_errors[counter] < 0) return NOT_SUPPORTED;
    *out = (unsigned long long)gpu->ecc_errors[counter];
    return SUCCESS;
}

nvml_return nvmlDeviceGetRemappedRows(device *gpu, unsigned *corrected, unsigned *lost, unsigned *pending, unsigned *failed)
{
    if (gpu->rows[0] < 0) return NOT_SUPPORTED;
    *corrected = (unsigned)gpu->rows[0];
    *lost = (unsigned)gpu->rows[1];
    *pending = (unsigned)gpu->rows[2];
    *failed = (unsigned)gpu->rows[3];
    return SUCCESS;
}

nvml_return nvmlDeviceGetCurrPcieLinkGeneration(device *gpu, int *out) { return give_int(out, gpu->pcie[GENERATION]); }
nvml_return nvmlDeviceGetMaxPcieLinkGeneration(device *gpu, int *out)
{
    return give_int(out, gpu->pcie[GENERATION_MAXIMUM]);
}
nvml_return nvmlDeviceGetGpuMaxPcieLinkGeneration(device *gpu, int *out)
{
    return give_int(out, gpu->pcie[GENERATION_PRODUCT]);
}
nvml_return nvmlDeviceGetCurrPcieLinkWidth(device *gpu, int *out) { return give_int(out, gpu->pcie[WIDTH]); }
nvml_return nvmlDeviceGetMaxPcieLinkWidth(device *gpu, int *out) { return give_int(out, gpu->pcie[WIDTH_MAXIMUM]); }

nvml_return nvmlDeviceGetComputeRunningProcesses_v3(device *gpu, unsigned *count, process_info *out)
{
    unsigned room = *count, wanted = (unsigned)gpu->process_count;
    *count = wanted;
    if (room < wanted) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < wanted; i++) {
        memset(&out[i], 0, sizeof out[i]);
        out[i].pid = gpu->processes[i].pid;
        out[i].memory = gpu->processes[i].memory_mib << 20;
    }
    return SUCCESS;
}

nvml_return nvmlSystemGetProcessName(unsigned pid, char *out, unsigned room)
{
    for (int i = 0; i < gpu_count; i++)
        for (int k = 0; k < devices[i].process_count; k++)
            if (devices[i].processes[k].pid == pid && strcmp(devices[i].processes[k].name, "-"))
                return give_text(out, room, devices[i].processes[k].name);
    return INVALID_ARGUMENT;
}

nvml_return nvmlDeviceGetGpuFabricInfoV(device *gpu, fabric_info *out)
{
    if (gpu->fabric[0] < 0) return NOT_SUPPORTED;
    if (out->version != FABRIC_VERSION_2) return ARGUMENT_VERSION_MISMATCH;
    out->state = (unsigned char)gpu->fabric[0];
    out->status = gpu->fabric[1];
    return SUCCESS;
}
