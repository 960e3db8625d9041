<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

/**
 * Whether the visitor of this request has consented to statistics. No answer means no.
 *
 * Sales, accounts and forms are reported in any case, since they are transactions with the shop, but without data about the
 * session.
 */
final class Consent
{
    public static function is_given(Visitor $visitor): bool
    {
        // The tracker sets the session cookie with consent only, never if the browser objects, and deletes it with the consent.
        // The WP Consent API may have a newer answer; without a consent tool it says yes.
        $given = $visitor->session_id() !== '' && (! function_exists('wp_has_consent') || wp_has_consent('statistics'));
        /**
         * The visitor consents to statistics.
         *
         * @param bool $given According to the tracker and, if available, the WP Consent API.
         */
        return (bool) apply_filters('pmp_analytics_has_consent', $given);
    }
}
