<?php

/**
 * The WP Consent API, as much of it as is asked on the server. Without a consent tool it says yes.
 */

declare(strict_types=1);

class WP_Consent_Double
{
    /** @var array<string, bool> */
    public static array $answers = [];
}

function wp_has_consent(string $category): bool
{
    return WP_Consent_Double::$answers[$category] ?? true;
}
