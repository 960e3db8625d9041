<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

/**
 * Whether the visitor of this request lets the shop count what they do. Nobody said yes means no.
 *
 * Sales, accounts and forms are told all the same, for they are the shop's business with somebody, but without the marks
 * of the visit.
 */
final class Consent
{
    public static function is_given(Visit $visit): bool
    {
        // The tracker keeps the cookie of the session with a consent only, which it does not find where the browser objects, and
        // deletes it with the consent. The WP Consent API may know of another answer by now; without a consent tool it says yes.
        $given = $visit->session_id() !== '' && (! function_exists('wp_has_consent') || wp_has_consent('statistics'));
        /**
         * The visitor consents to statistics.
         *
         * @param bool $given What the tracker says, and the WP Consent API where it is there.
         */
        return (bool) apply_filters('pmp_analytics_has_consent', $given);
    }
}
