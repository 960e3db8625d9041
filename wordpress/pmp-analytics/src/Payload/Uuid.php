<?php

declare(strict_types=1);

namespace PMP\Analytics\Payload;

/**
 * Ids for new records.
 */
final class Uuid
{
    /**
     * A UUIDv7 (RFC 9562): sorts by its time, which keeps the mesh's indexes small.
     *
     * @param float $now Seconds since 1970.
     */
    public static function make(float $now): string
    {
        $bytes = substr(pack('J', (int) ($now * 1000)), 2) . random_bytes(10);
        $bytes[6] = chr(ord($bytes[6]) & 0x0F | 0x70);
        $bytes[8] = chr(ord($bytes[8]) & 0x3F | 0x80);
        return vsprintf('%s%s-%s-%s-%s-%s%s%s', str_split(bin2hex($bytes), 4));
    }
}
