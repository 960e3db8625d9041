<?php

declare(strict_types=1);

namespace PMP\Analytics\Api;

/**
 * A call of the mesh, signed as Standard Webhooks has it: HMAC-SHA256 of its id, its time and its body.
 */
final class Webhook
{
    private const TOLERANCE_SECONDS = 300;

    private const SECRET_PREFIX = 'whsec_';

    private const MIN_SECRET_BYTES = 24;

    private const VERSION = 'v1,';

    /**
     * @param string $time       Seconds since 1970, as the call says.
     * @param string $signatures One or more, with spaces between: a secret may be in the middle of being changed.
     */
    public function __construct(
        public readonly string $id,
        private readonly string $time,
        private readonly string $signatures,
        private readonly string $body,
    ) {
    }

    /**
     * True when whoever knows the secret has made this call, and not long ago.
     *
     * @param string $secret As the mesh has it: `whsec_` and base64.
     */
    public function is_signed(string $secret, float $now): bool
    {
        $key = base64_decode(str_replace(self::SECRET_PREFIX, '', $secret), true);
        if ($key === false || strlen($key) < self::MIN_SECRET_BYTES || $this->id === '' || ! ctype_digit($this->time)) {
            return false;
        }
        if (abs($now - (float) $this->time) > self::TOLERANCE_SECONDS) {
            return false;
        }
        $right = self::VERSION . base64_encode(hash_hmac('sha256', "{$this->id}.{$this->time}.{$this->body}", $key, true));
        return array_filter(explode(' ', $this->signatures), static fn (string $each): bool => hash_equals($right, $each)) !== [];
    }
}
